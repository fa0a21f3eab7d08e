"""Run every config as written, on mini data sets and at a small size: build, two training iterations, an
evaluation, a checkpoint, and going on from it.

Ends with a table, and with exit code 1 if a config failed.
"""
import argparse
import fnmatch
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from plugconv_mm.runtime.dry_run import DryRunReport, build_data, dry_run_apart

ROOT = Path(__file__).resolve().parents[2]


def find_configs(pattern: str = '*') -> list[Path]:
    """The configs under ``configs`` whose path contains a text or matches a pattern such as ``hornet/upernet*``."""
    paths = (path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
    return sorted(path for path in paths if pattern in str(path) or fnmatch.fnmatch(str(path), f'*{pattern}*'))


def check(configs: Sequence[Path], folder: Path, jobs: int = 1,
          log: Callable[[str], object] = print) -> list[DryRunReport]:
    """Dry-run configs, each in a process of its own.

    Args:
        configs: Paths relative to the repository.
        folder: The folder of data, logs and checkpoints; logs of what failed stay.
        jobs: Number of processes at a time.
        log: Called with a line for each config.

    Returns:
        The reports in the order of ``configs``.
    """
    os.chdir(ROOT)
    build_data(folder / 'data')
    # Forked from a process that has imported all there is, once, and done nothing else: autograd's threads, of which
    # the caller may have some, do not survive a fork.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([dry_run_apart.__module__, 'mmdet.apis', 'mmseg.apis', 'mmpretrain.apis'])
    waiting, running, reports = list(enumerate(configs)), {}, {}
    while waiting or running:
        while waiting and len(running) < jobs:
            number, config = waiting.pop(0)
            work_dir = folder / config.with_suffix('').relative_to('configs')
            shutil.rmtree(work_dir, ignore_errors=True)  # of an earlier run in the same folder
            work_dir.mkdir(parents=True)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=dry_run_apart, args=(config, folder / 'data', work_dir, sender))
            process.start()
            running[process.sentinel] = number, process, receiver, work_dir, time.perf_counter()
        for sentinel in multiprocessing.connection.wait(list(running)):
            number, process, receiver, work_dir, start = running.pop(sentinel)
            process.join()
            if receiver.poll():
                report = receiver.recv()
            else:  # killed, as by the system when memory runs out
                report = DryRunReport(str(configs[number]), 'process', f'ended with {process.exitcode}',
                                seconds=time.perf_counter() - start)
            reports[number] = report
            result = f'FAILED at {report.failed}: {report.error}' if report.failed else 'ok'
            if report.failed:
                result += f'\n          see {work_dir}/log.txt'
            else:
                shutil.rmtree(work_dir)
            log(f'[{len(reports):3}/{len(configs)}] {report.seconds:6.1f} s  {report.config}  {result}')
    return [reports[number] for number in sorted(reports)]


def table(reports: Sequence[DryRunReport]) -> str:
    """A table in Markdown."""
    rows = [('Config', 'Parameters', 'Losses', 'Evaluated', 'Weights left out', 'Seconds', 'Result')]
    for r in reports:
        losses = ', '.join(f'{loss:.2f}' for loss in r.losses)
        evaluated = next((f'{name.rpartition("/")[2]} and {len(r.metrics) - 1} more' for name in r.metrics), '–')
        weights = ', '.join(path.rpartition('/')[2] for path in r.missing_weights) or '–'
        rows.append((r.config.removeprefix('configs/').removesuffix('.py'), f'{r.parameters / 1e6:.1f}M', losses,
                     evaluated, weights, f'{r.seconds:.0f}', f'failed: {r.failed}' if r.failed else
                     'ok, in one process, which does not shard' if r.whole else 'ok'))
    rows.insert(1, ('---', ) * len(rows[0]))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pattern', nargs='?', default='*', help='only configs whose path contains or matches this')
    parser.add_argument('--jobs', type=int, default=1, help='processes at a time; the largest take 8 GB of memory')
    parser.add_argument('--folder', help='keep data and logs here (default: a temporary folder)')
    parser.add_argument('--table', help='also write the table into this Markdown file')
    args = parser.parse_args(argv)
    configs = find_configs(args.pattern)
    if not configs:
        parser.error(f'no config matches {args.pattern}')
    folder = Path(args.folder or tempfile.mkdtemp(prefix='check_configs-')).resolve()
    if args.table:
        args.table = Path(args.table).resolve()
    reports = check(configs, folder, args.jobs, log=lambda line: print(line, flush=True))
    print(f'\n{table(reports)}')
    if args.table:
        args.table.write_text(table(reports) + '\n')
    failed = [r for r in reports if r.failed]
    if failed:
        sys.exit('\n' + '\n'.join(f'check_configs.py: error: {r.config} failed at {r.failed}: {r.error}'
                                  for r in failed))
    if not args.folder:
        shutil.rmtree(folder)
    print(f'\nAll {len(reports)} configs passed.')


if __name__ == '__main__':
    main()
