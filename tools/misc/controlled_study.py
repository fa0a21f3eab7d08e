"""Do the operators do what their papers claim? Small networks, the same data and budget for each, several seeds.

Every network has the features of two stages (strides 4 and 8), a neck and a light head, and trains on one core with 8
images an iteration. With the labels `cue` the class is told by a mark 72 pixels away, with `digit` by the digit
itself; see plugconv_mm/datasets/distant_cue.py. A run that was interrupted goes on: what was trained is kept.

Writes study.json, study.md and study.png.
"""
import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Network:
    """Settings of a network that differ from configs/_base_/study.py."""
    name: str
    backbone: dict = field(default_factory=dict)
    neck: dict = field(default_factory=dict)
    hooks: list = field(default_factory=list)
    positions: bool = True  # of ParC: whether there is a position embedding


@dataclass
class Question:
    """Networks that are compared, on labels `cue` or `digit`, after so many iterations."""
    title: str
    labels: str
    iters: int
    networks: list[Network]


def convnext(name: str, kind: str, channels: Sequence[int] = (16, 32), hooks: Sequence[dict] = (),
             **kwargs: Any) -> Network:
    arch = dict(channels=[16, 32, 64, 128], depths=[1, 2, 1, 1])
    backbone = dict(_delete_=True, type=f'plugconv_mm.{kind}', arch=arch, out_indices=(0, 1), layer_scale_init=1.)
    return Network(name, backbone | kwargs, dict(in_channels=list(channels)), list(hooks))


def slak(name: str, size: int, small: int = 5, **kwargs: Any) -> Network:
    return convnext(name, 'SLaK', kernel_size=(size, ) * 4, small_kernel=small, **dict(width_factor=1.) | kwargs)


def kernel_warehouse(ratio: float) -> Network:
    # cells of half the size at half the budget, as the paper has them
    cells = {} if ratio >= 1 else dict(cell_inplane_ratio=0.5, cell_outplane_ratio=0.5)
    hooks = [dict(type='plugconv_mm.KernelWarehouseTemperatureHook', iters=200)]
    return convnext(f'KernelWarehouse {ratio}×', 'KWConvNeXt', hooks=hooks, cell_num_ratio=ratio, **cells)


PARC = dict(parc_blocks=(0, 3, 0, 0))
STUDY = [
    Question('Changes to a ResNet with 3×3 convolutions and an FPN', 'cue', 500, [
        Network('nothing'),
        Network('HorFPN 7×7', neck=dict(type='plugconv_mm.HorFPN', filter='7x7')),
        Network('HorFPN GF', neck=dict(type='plugconv_mm.HorFPN', filter='gf')),
        Network('ParC in the last stage', PARC),
        Network('ParC without position embedding', PARC, positions=False),
    ]),
    Question('Attention', 'cue', 500, [
        Network('TransCNN', dict(
            _delete_=True, type='plugconv_mm.TransCNN', head_width=16, out_indices=(0, 1),
            arch=dict(depths=[1, 2, 1, 1], channels=[16, 32, 64, 128], expand_ratios=[4, 4, 4, 4])),
            dict(in_channels=[16, 32])),
    ]),
    Question('Kernel sizes of SLaK', 'cue', 500, [
        slak('7×7', 7, small=7),
        slak('51×51, decomposed', 51),
        slak('51×51, decomposed, 1.3 times as wide, 40% sparse', 51, width_factor=1.3, channels=(20, 41), hooks=[
            dict(type='plugconv_mm.DynamicSparsityHook', sparsity=0.4, update_frequency=40, module='backbone')]),
    ]),
    Question('Plain or dynamic convolutions in a ConvNeXt, by budget', 'digit', 500, [
        convnext('plain', 'ParCConvNeXt', parc_blocks=(0, 0, 0, 0)),
        *map(kernel_warehouse, (0.5, 1, 4)),
    ]),
]


def configure(question: Question, network: Network, seed: int, data: Path, work_dir: Path) -> 'Config':
    """The config of one training."""
    from mmengine.config import Config
    cfg = Config.fromfile(ROOT / 'configs/_base_/study.py')
    classes = ('background', *map(str, range(10))) if question.labels == 'digit' else cfg.metainfo['classes']
    changes = dict(
        work_dir=str(work_dir), randomness=dict(seed=seed), log_level='WARNING',
        model=dict(backbone=network.backbone, neck=network.neck, decode_head=dict(
            num_classes=len(classes), loss_decode=dict(class_weight=[0.3] + [1.] * (len(classes) - 1)))),
        custom_hooks=[*cfg.custom_hooks, *network.hooks],
        train_cfg=dict(max_iters=question.iters, val_interval=question.iters // 4))
    metainfo = dict(classes=classes, palette=[[20 * i] * 3 for i in range(len(classes))])
    for name, split in (('train', 'training'), ('val', 'validation')):
        changes[f'{name}_dataloader'] = dict(dataset=dict(
            data_root=str(data), metainfo=metainfo,
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'{question.labels}/{split}')))
    cfg.merge_from_dict(changes)
    warm_up = min(40, question.iters // 4)
    cfg.param_scheduler[0].update(end=warm_up)
    cfg.param_scheduler[1].update(begin=warm_up, end=question.iters, T_max=question.iters - warm_up)
    return cfg


def result_file(out: Path, number: int, index: int, seed: int) -> Path:
    return out / f'{number}-{index}-{seed}-of-{STUDY[number].iters}.json'


def train(number: int, index: int, seed: int, data: Path, out: Path) -> None:
    """Train one network, in this process, and write what came out."""
    import torch
    from mmengine.hooks import Hook

    import plugconv_mm  # noqa: F401
    from plugconv_mm.atomic_write import atomic_write
    from plugconv_mm.ops import ParC2d
    from plugconv_mm.runtime.build_runner import build_runner
    torch.set_num_threads(1)
    question = STUDY[number]
    network = question.networks[index]
    runner = build_runner(configure(question, network, seed, data, out / 'logs' / f'{number}-{index}-{seed}'))
    if not network.positions:
        for module in runner.model.modules():
            if isinstance(module, ParC2d):
                module.position_embedding = None
    curve = {}

    class Watch(Hook):

        def after_val_epoch(self, runner, metrics=None):
            curve[runner.iter] = float(metrics['mIoU'])

    runner.register_hook(Watch(), 'LOWEST')
    start = time.perf_counter()
    runner.train()
    trained = list(runner.optim_wrapper.optimizer.state)  # without those of the stages that are not used
    seconds = round(time.perf_counter() - start, 1)
    result = dict(curve=curve, seconds=seconds, parameters=sum(p.numel() for p in trained),
                  nonzero=sum(int(p.count_nonzero()) for p in trained))
    with atomic_write(result_file(out, number, index, seed)) as file:
        file.write(json.dumps(result).encode())


def run_all(tasks: Sequence[tuple[int, int, int]], data: Path, out: Path, jobs: int) -> None:
    """Train what has not been trained, each in a process of its own, and show how far it is."""
    waiting = [task for task in tasks if not result_file(out, *task).is_file()]
    total, done, running, start = len(waiting), 0, {}, time.perf_counter()
    path = os.pathsep.join((str(ROOT), os.environ.get('PYTHONPATH', '')))
    environment = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=path)
    while waiting or running:
        while waiting and len(running) < jobs:
            task = waiting.pop(0)
            log = out / 'logs' / '{}-{}-{}.txt'.format(*task)
            log.parent.mkdir(exist_ok=True)
            with open(log, 'w') as file:
                process = subprocess.Popen(
                    [sys.executable, __file__, '--task', *map(str, task), '--iters',
                     str(STUDY[task[0]].iters), '--data', str(data), '--out', str(out)],
                    stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
            running[process] = task, log
        time.sleep(0.5)
        for process in [process for process in running if process.poll() is not None]:
            task, log = running.pop(process)
            if process.returncode:
                for other in running:
                    other.kill()
                sys.exit(f'controlled_study.py: error: a training failed, see {log}')
            done += 1
            question = STUDY[task[0]]
            left = (time.perf_counter() - start) / done * (total - done) / 60
            print(f'[{done:2}/{total}] {question.networks[task[1]].name}, seed {task[2]}; about {left:.0f} min left',
                  flush=True)


def summarise(seeds: int, out: Path) -> list[dict]:
    """Read the results of all networks: by question a list of dicts."""
    summary = []
    for number, question in enumerate(STUDY):
        rows = []
        for index, network in enumerate(question.networks):
            results = [json.loads(result_file(out, number, index, seed).read_text()) for seed in range(seeds)]
            curve = {step: [result['curve'][step] for result in results] for step in results[0]['curve']}
            rows.append(dict(network=network.name, mIoU=curve, parameters=results[0]['parameters'],
                             nonzero=results[0]['nonzero'], seconds=[result['seconds'] for result in results]))
        summary.append(dict(question=question.title, labels=question.labels, iters=question.iters, networks=rows))
    return summary


def table(summary: Sequence[dict]) -> str:
    """A table in Markdown: mean ± standard deviation over the seeds."""

    def figure(values: Sequence[float]) -> str:
        return f'{mean(values):.1f} ± {stdev(values):.1f}' if len(values) > 1 else f'{values[0]:.1f}'

    lines = []
    for part in summary:
        steps = list(part['networks'][0]['mIoU'])
        half, whole = steps[len(steps) // 2 - 1], steps[-1]
        lines += [f'**{part["question"]}** (labels `{part["labels"]}`)', '',
                  f'| network | non-zero weights | mIoU after {half} iterations | after {whole} |',
                  '| --- | --- | --- | --- |']
        lines += [f'| {row["network"]} | {row["nonzero"]:,} | {figure(row["mIoU"][half])} | '
                  f'{figure(row["mIoU"][whole])} |' for row in part['networks']]
        lines.append('')
    return '\n'.join(lines)


def plot(path: Path, summary: Sequence[dict]) -> None:
    """Means over the iterations, with one standard deviation to each side."""
    from matplotlib.figure import Figure

    from plugconv_mm.visualization import save_figure
    figure = Figure(figsize=(4 * len(summary), 4), dpi=110, layout='constrained')
    for axes, part in zip(figure.subplots(1, len(summary), squeeze=False)[0], summary, strict=True):
        for row in part['networks']:
            steps = [int(step) for step in row['mIoU']]
            means = [mean(values) for values in row['mIoU'].values()]
            spread = [stdev(values) if len(values) > 1 else 0 for values in row['mIoU'].values()]
            axes.errorbar(steps, means, spread, marker='o', capsize=3, label=row['network'])
        axes.set(title=part['question'].replace(', ', ',\n', 1), xlabel='iterations', ylim=(0, 100))
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.get_axes()[0].set_ylabel('mIoU')
    save_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=Path('data/distant_cue'), help='where the images are built')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study'), help='for results and logs')
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each network')
    parser.add_argument('--iters', type=int, help='of each training, to try it out (default: those of the study)')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='trainings at a time, one core each')
    parser.add_argument('--task', type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.iters is not None:
        if args.iters < 4:
            parser.error(f'--iters must be at least 4, for four evaluations, got {args.iters}')
        for question in STUDY:
            question.iters = args.iters
    if args.task:
        logging.disable(logging.INFO)
        return train(*args.task, args.data.resolve(), args.out.resolve())
    if args.seeds < 1 or args.jobs < 1:
        parser.error('--seeds and --jobs must be at least 1')
    from plugconv_mm.atomic_write import atomic_write
    from plugconv_mm.datasets import build_distant_cue
    data, out = args.data.resolve(), args.out.resolve()
    build_distant_cue(data)
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(number, index, seed) for number, question in enumerate(STUDY)
             for index in range(len(question.networks)) for seed in range(args.seeds)]
    run_all(tasks, data, out, args.jobs)
    summary = summarise(args.seeds, out)
    for name, text in (('study.json', json.dumps(summary, indent=1)), ('study.md', table(summary))):
        with atomic_write(out / name) as file:
            file.write(f'{text}\n'.encode())
    plot(out / 'study.png', summary)
    print(f'\n{table(summary)}\n{out}/study.md, study.json and study.png')


if __name__ == '__main__':
    main()
