"""Evaluate exported files side by side with the model in PyTorch that they were made of.

The test of the config runs for all of them, batch by batch in turns; the table has their figures and times, and a
figure that differs from PyTorch's by more than 0.1 points is named below it.
"""
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from plugconv_mm.export.exported_model import ExportedModel
from plugconv_mm.export.runtimes import open_exported
from plugconv_mm.export.side_by_side import compare_figures, evaluate_side_by_side
from plugconv_mm.runtime.check_data import check_data
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors
from plugconv_mm.runtime.weights import build_with_weights


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('files', nargs='+', type=Path, metavar='FILE', help='files made of it')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('test_exported.py'):
        cfg = load_config(args)
        check_data(cfg, 'test_dataloader')
        files = {path: open_exported(path) for path in args.files}
        model = build_with_weights(cfg, args.checkpoint)
        forms = {'PyTorch': model}
        forms |= {f'{path.name}, {file.runtime}': ExportedModel(model, file) for path, file in files.items()}
        print(compare_figures(cfg, forms, evaluate_side_by_side(cfg, forms)))


if __name__ == '__main__':
    main()
