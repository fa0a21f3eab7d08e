"""Parameters and multiply-adds of the model of a config, by part and by kind of operator.

What is counted, and how, is written down in plugconv_mm/ops/multiply_adds.py and flops.py.
"""
from argparse import Namespace
from collections.abc import Sequence

from plugconv_mm.analysis import build_model, measure, padded_shape
from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors

SHAPES = dict(mmdet=(800, 1280), mmseg=(512, 2048), mmpretrain=(224, 224))  # of the published tables


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False)
    parser.add_argument('--shape', nargs='+', type=int, metavar='PIXELS',
                        help='height and width of the image, or one number for a square (default: 800 1280 for '
                        'mmdet, 512 2048 for mmseg, 224 224 for mmpretrain)')
    args = parser.parse_args(argv)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape takes a height and a width in pixels, got {args.shape}')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('get_flops.py'):
        cfg = load_config(args)
        shape = args.shape or SHAPES.get(cfg.get('default_scope'))
        if shape is None:
            raise ConfigError(f'{args.config} is of no package with a usual image size: give --shape HEIGHT WIDTH')
        shape = (shape[0], shape[-1])
        model = build_model(cfg)
        padded = padded_shape(model, shape)
        try:
            cost = measure(model, padded)
        except NotImplementedError as error:
            raise ConfigError(f'{args.config}: {error}') from error
        print(f'{args.config}, an image of {shape[0]}x{shape[1]}'
              + (f', padded to {padded[0]}x{padded[1]}' if padded != shape else ''))
        print(cost.table())


if __name__ == '__main__':
    main()
