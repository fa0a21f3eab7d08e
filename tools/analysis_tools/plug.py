"""Operators plugged into the model of a config: which layers get them, and what that costs. Nothing is trained.

    python tools/analysis_tools/plug.py CONFIG --rule 're:backbone\\.layer4\\..*\\.conv2' ParCHW2d where.stride=1

A rule is the target (a name, or re: and a regular expression), the operator, and any of its arguments, of start, unfit
and exclude, and of where. as in plugconv_mm.plug. Without --rule, the layers of the model are listed.
"""
import ast
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Any

from torch import nn

from plugconv_mm.analysis import build_model, measure, padded_shape
from plugconv_mm.plugging import plug
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors

_OF_RULE = ('start', 'unfit', 'exclude')


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False)
    parser.add_argument('--rule', nargs='+', action='append', default=[], metavar=('TARGET', 'OPERATOR [KEY=VALUE]'),
                        help='layers and what they get; may be given several times, the first that means a layer '
                        'counts')
    parser.add_argument('--shape', nargs=2, type=int, default=[512, 512], metavar=('H', 'W'),
                        help="image for the cost, and for arguments that are 'auto' (default: 512 512)")
    args = parser.parse_args(argv)
    try:
        args.rule = [make_rule(words) for words in args.rule]
    except ArgumentTypeError as error:
        parser.error(str(error))
    return args


def make_rule(words: Sequence[str]) -> dict[str, Any]:
    """Make a rule of the words behind --rule."""
    target, *rest = words
    if not rest or '=' in rest[0]:
        raise ArgumentTypeError(f'--rule takes a target and an operator, got {" ".join(words)}')
    rule: dict[str, Any] = dict(target=target, where={}, start='residual',
                                to=None if rest[0] == 'None' else dict(type=rest[0]))
    for word in rest[1:]:
        key, sign, text = word.partition('=')
        if not sign:
            raise ArgumentTypeError(f'--rule takes KEY=VALUE behind the operator, got {word}')
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text  # a word
        if key.startswith('where.'):
            rule['where'][key.removeprefix('where.')] = value
        elif key in _OF_RULE:
            rule[key] = value
        else:
            rule['to'][key] = value
    return rule


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('plug.py'):
        model = build_model(load_config(args))
        shape = padded_shape(model, tuple(args.shape))
        if not args.rule:
            for name, module in model.named_modules():
                if isinstance(module, nn.Conv2d):
                    print(f'{name}  {module.extra_repr()}')
            return
        before = measure(model, shape)
        print(plug(model, args.rule, shape))
        after = measure(model, shape)
        print(f'The whole model, an image of {shape[0]}x{shape[1]}: {before.total_params / 1e6:.2f}M parameters before '
              f'and {after.total_params / 1e6:.2f}M after, {before.total_macs() / 1e9:.4g}G multiply-adds before and '
              f'{after.total_macs() / 1e9:.4g}G after')


if __name__ == '__main__':
    main()
