"""Compare models: parameters, multiply-adds, latency and memory, of the whole and of backbone, neck and head.

Each round times every model, in an order drawn anew. What is timed are all layers of the network on random images,
without decoding, NMS and RoIAlign: the work whose multiply-adds are counted (ParC's as Fast-ParC, unless --backend says
otherwise).
"""
import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from plugconv_mm.analysis.compare import ComparisonReport, compare
from plugconv_mm.analysis.model_zoo import write
from plugconv_mm.analysis.paper_comparisons import PUBLISHED
from plugconv_mm.errors import ConfigError
from plugconv_mm.ops import ParC2d
from plugconv_mm.plugging import merge
from plugconv_mm.runtime.build import build_task, check_device
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__, runs=False, configs='*')
    parser.add_argument('--sets', nargs='+', choices=[*PUBLISHED, 'all'], metavar='SET', default=[],
                        help='comparisons of the papers, in place of configs: '
                        + ', '.join(f'{name} ({item.about})' for name, item in PUBLISHED.items()) + '; or all')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'),
                        help='height and width of the images; sets have their own')
    parser.add_argument('--batch', type=int, default=1, help='images at once (default: 1)')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda, cuda:1')
    parser.add_argument('--backend', choices=('auto', 'spatial', 'fft', 'gemm'), help='of all ParC layers')
    parser.add_argument('--deploy', action='store_true', help='measure deployment forms, of models that have one')
    parser.add_argument('--rounds', type=int, default=10, help='times that each model is timed (default: 10)')
    parser.add_argument('--threads', type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='write the table as .md, everything as .json, and '
                        'a plot as .png')
    args = parser.parse_args(argv)
    if bool(args.config) == bool(args.sets):
        parser.error('give either configs or --sets')
    if args.config and not args.shape:
        parser.error('--shape H W says how large the images are')
    for name in ('batch', 'rounds', 'threads', 'shape'):
        value = getattr(args, name)
        if value is not None and min(value if isinstance(value, list) else [value]) < 1:
            parser.error(f'--{name} should be at least 1, got {value}')
    return args


def build(name: str, config: str, args: argparse.Namespace) -> nn.Module:
    """A model, with what the command line says of its operators."""
    cfg = load_config(argparse.Namespace(**{**vars(args), 'config': config}))
    model, _ = build_task(cfg, config)
    for layer in model.modules():
        if args.backend and isinstance(layer, ParC2d):
            layer.backend = args.backend
    if args.deploy:
        merge(model)
        for part in (model, getattr(model, 'backbone', None)):
            if hasattr(part, 'switch_to_deploy'):
                part.switch_to_deploy()
    return model


def names_of(configs: Sequence[str]) -> dict[str, str]:
    """Short names of configs: their files', or their paths where files have the same name."""
    stems = [Path(config.rpartition('::')[2]).stem for config in configs]
    if len(set(configs)) < len(configs):
        raise ConfigError('a config is given twice')
    return {stem if stems.count(stem) == 1 else config: config for stem, config in zip(stems, configs, strict=True)}


def table(reports: Sequence[ComparisonReport]) -> str:
    """Markdown, aligned for people."""
    baseline = reports[0].whole.latency[0]
    rows = [('model', 'parameters (M)', 'multiply-adds (G)', 'latency (ms)', 'quartiles', 'to the first', 'memory (MB)',
             'ParC')]
    for report in reports:
        for part, cost in (('', report.whole), *report.parts.items()):
            median, low, high = cost.latency
            rows.append((
                f'- {part}' if part else report.name, f'{cost.params / 1e6:.2f}', f'{cost.macs / 1e9:.3f}',
                f'{median:.1f}', f'{low:.1f} to {high:.1f}', '' if part else f'{median / baseline:.2f}',
                f'{cost.memory / 1e6:.0f}',
                '' if part else ', '.join(f'{count} {form}' for form, count in report.backends.items())))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + ' |'
             for row in rows]
    return '\n'.join([lines[0], '|' + '|'.join('-' * (width + 2) for width in widths) + '|', *lines[1:]])


def machine(args: argparse.Namespace) -> dict:
    """The device, threads and versions that the figures were measured with."""
    gpu = torch.cuda.get_device_name(args.device) if args.device.startswith('cuda') else None
    return dict(torch=torch.__version__, device=gpu or platform.processor() or platform.machine(),
                threads=torch.get_num_threads(), dtype='float32', rounds=args.rounds)


def run(title: str, about: str, shape: tuple[int, int], configs: dict[str, str], args: argparse.Namespace) -> None:
    """One comparison: print it, write it down."""
    models = {}
    for name, config in configs.items():
        print(f'{name}: building', flush=True)
        torch.manual_seed(0)
        models[name] = build(name, config, args)
    try:
        reports = compare(models, shape, args.batch, args.device, args.rounds,
                          progress=lambda line: print(line, flush=True))
    except NotImplementedError as error:
        raise ConfigError(f'one of the models cannot be compared: {error}') from error
    where = machine(args)
    head = (f'{about}: {args.batch} x {shape[0]}x{shape[1]}, {where["device"]}'
            + (f', {where["threads"]} threads' if args.device == 'cpu' else '')
            + f', float32, torch {where["torch"]}; medians of {args.rounds} rounds')
    print(f'\n{head}\n\n{table(reports)}\n', flush=True)
    if args.out:
        from plugconv_mm.visualization import plot_costs
        args.out.mkdir(parents=True, exist_ok=True)
        write(args.out / f'{title}.md', f'{head}\n\n{table(reports)}\n')
        write(args.out / f'{title}.json', json.dumps(
            dict(about=about, **where, models=[asdict(report) for report in reports]), indent=2) + '\n')
        plot_costs(args.out / f'{title}.png', about, reports)
        print(f'written: {args.out / title}.md, .json and .png', flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('compare.py'):
        check_device(args.device)
        if args.threads:
            torch.set_num_threads(args.threads)
        if args.config:
            configs = names_of(args.config)
            run('compare', 'Models side by side', tuple(args.shape), configs, args)
        for name in PUBLISHED if 'all' in args.sets else args.sets:
            item = PUBLISHED[name]
            run(name, item.about, tuple(args.shape or item.shape), item.configs, args)


if __name__ == '__main__':
    main()
