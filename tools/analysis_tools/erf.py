"""Effective receptive fields of models: a figure of heat maps with one scale, and a table of area ratios.

A pixel's contribution is the gradient of the feature map's central units with respect to it. An area ratio is the area
of the smallest square around the image's centre that holds a share of all contributions, of the image's area: the
larger, the larger the receptive field. See plugconv_mm/analysis/receptive_field.py.
"""
import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.utils import ProgressBar
from torch import Tensor, nn

from plugconv_mm.analysis.features import map_of_config, map_of_timm, open_branches
from plugconv_mm.analysis.model_input import as_input
from plugconv_mm.analysis.model_zoo import write
from plugconv_mm.analysis.receptive_field import SHARES, area_ratios, contributions, replknet_scores, square_sides
from plugconv_mm.datasets.image_files import find_images, read_image
from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.build import check_device
from plugconv_mm.runtime.config_parts import without_operators
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__, runs=False, configs='+')
    parser.epilog = 'timm::NAME in place of a config takes a model of timm.'
    parser.add_argument('--checkpoint', nargs='+', metavar='FILE', help='weights, one file for each config; none means '
                        'random weights (default: all random)')
    parser.add_argument('--part', choices=('backbone', 'neck'), default='backbone',
                        help='whose map (default: backbone)')
    parser.add_argument('--stage', type=int, help="which map: the backbone's stage, or the neck's level, from 0 "
                        '(default: the last)')
    parser.add_argument('--open-branches', action='store_true', help='of random weights, set to 1 the scales with '
                        'which residual branches begin near zero (layer scale, zero-initialised norms)')
    parser.add_argument('--images', metavar='DIR', help='folder of images (default: random noise)')
    parser.add_argument('--num', type=int, default=50, help='images at most (default: 50)')
    parser.add_argument('--size', type=int, default=1024, help='to which images are stretched (default: 1024)')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda, cuda:1')
    parser.add_argument('--seed', type=int, default=0, help='of random weights and noise (default: 0)')
    parser.add_argument('--names', nargs='+', help='of the models, in figure and table')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/erf.png'), metavar='FILE.png',
                        help='the figure; the table goes to FILE.md and FILE.json (default: work_dirs/erf.png)')
    args = parser.parse_args(argv)
    for name in ('checkpoint', 'names'):
        given = getattr(args, name)
        if given and len(given) != len(args.config):
            parser.error(f'--{name} takes one for each of the {len(args.config)} configs, got {len(given)}')
    for name, least in (('num', 1), ('size', 2), ('stage', 0)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f'--{name} should be at least {least}, got {getattr(args, name)}')
    if args.out.suffix != '.png':
        parser.error(f'--out should end in .png, got {args.out}')
    return args


def build(config: str, checkpoint: str | None, args: argparse.Namespace) -> tuple[nn.Module, dict | None]:
    """The map of a config or of a model of timm, and the preprocessing that it wants."""
    checkpoint = None if checkpoint == 'none' else checkpoint
    torch.manual_seed(args.seed)
    if config.startswith('timm::'):
        if args.part == 'neck':
            raise ConfigError(f'{config} has no neck')
        return map_of_timm(config.removeprefix('timm::'), args.stage, checkpoint), None
    cfg = load_config(argparse.Namespace(**{**vars(args), 'config': config}))
    preprocessor = cfg.get('data_preprocessor') or without_operators(cfg.get('model') or {}).get('data_preprocessor')
    return map_of_config(cfg, config, args.part, args.stage, checkpoint), preprocessor


def inputs(args: argparse.Namespace, files: Sequence[Path], preprocessor: dict | None, name: str) -> Iterator[Tensor]:
    """The images one after another, with a progress bar."""
    number = len(files) or args.num
    print(name, file=sys.stderr)
    bar = ProgressBar(number, bar_width=30, file=sys.stderr)
    generator = torch.Generator().manual_seed(args.seed)
    for i in range(number):
        image = as_input(read_image(files[i]), args.size, preprocessor) if files else torch.randn(
            1, 3, args.size, args.size, generator=generator)
        yield image.to(args.device)
        bar.update()
    print(file=sys.stderr)


def table(rows: dict[str, dict]) -> str:
    """Markdown."""
    head = ['model', *(f'{share:.0%}' for share in SHARES), *(f'{share:.0%}, of log10(1 + s)' for share in SHARES)]
    lines = [head, ['---'] * len(head)]
    lines += [[name, *(f'{100 * ratio:.3g}%' for ratio in (*row['ratios'], *row['ratios_log10']))]
              for name, row in rows.items()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('erf.py'):
        check_device(args.device)
        files = find_images(args.images)[:args.num] if args.images else []
        for file in files:
            read_image(file)  # before anything is computed
        names = args.names or [Path(config.rpartition('::')[2]).stem for config in args.config]
        if len(set(names)) < len(names):
            raise ConfigError(f'two models have the same name, {", ".join(names)}: give others with --names')
        fields, rows = {}, {}
        for name, config, checkpoint in zip(names, args.config, args.checkpoint or ['none'] * len(names), strict=True):
            features, preprocessor = build(config, checkpoint, args)
            if args.open_branches and checkpoint == 'none':
                open_branches(features)
            field = contributions(features.to(args.device), inputs(args, files, preprocessor, name))
            if not field.sum() > 0:
                raise ConfigError(f'no pixel contributes to the centre of the map of {config}: its gradients are zero '
                                  'or not finite')
            sides = square_sides(field)
            fields[name] = field, {share: side for share, side in zip(SHARES, sides, strict=True) if share >= 0.5}
            rows[name] = dict(config=config, checkpoint=checkpoint, sides=sides, ratios=area_ratios(field),
                              ratios_log10=area_ratios(replknet_scores(field)))
        from plugconv_mm.visualization import plot_contributions
        plot_contributions(args.out, fields)
        head = (f'Area of the smallest centred square that holds a share of the contributions, of {args.size}x'
                f'{args.size} pixels; {len(files) or args.num} images of {args.images or "random noise"}')
        print(f'{head}\n\n{table(rows)}\n\nwritten: {args.out}, .md and .json')
        write(args.out.with_suffix('.md'), f'{head}\n\n{table(rows)}\n')
        write(args.out.with_suffix('.json'), json.dumps(dict(
            size=args.size, num=len(files) or args.num, images=args.images, part=args.part, stage=args.stage,
            open_branches=args.open_branches, shares=SHARES, models=rows), indent=2) + '\n')


if __name__ == '__main__':
    main()
