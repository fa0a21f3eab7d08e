"""Make an exported ONNX file one of OpenVINO, or one whose convolutions and products are in int8.

The suffix of the file to write tells the runtime: .onnx, or .xml for OpenVINO. The ranges of int8 are measured on
images of the config's test, the validation images of its data set as a rule. Compare the files with
tools/deploy/test_exported.py: int8 costs accuracy.
"""
from argparse import Namespace
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from plugconv_mm.errors import ConfigError
from plugconv_mm.export.exported_model import ExportedModel
from plugconv_mm.export.onnx_int8 import quantize_onnx
from plugconv_mm.export.openvino_file import PRECISIONS, write_openvino
from plugconv_mm.export.preconditions import check_destination
from plugconv_mm.export.runtimes import open_exported
from plugconv_mm.runtime.build import build_model
from plugconv_mm.runtime.check_data import check_data
from plugconv_mm.runtime.defaults import set_pretrain_dataloaders
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False)
    parser.add_argument('file', type=Path, help='file of tools/deploy/export_onnx.py')
    parser.add_argument('out', type=Path, help='file to write, .onnx or .xml')
    parser.add_argument('--precision', choices=PRECISIONS, default='float32',
                        help='in which it is computed (default: %(default)s); bfloat16 is for .xml')
    parser.add_argument('--batches', type=int, default=32,
                        help='of the test, on which ranges of int8 are measured (default: %(default)s)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('convert_onnx.py'):
        check_destination(args.out)
        if args.out.suffix not in ('.onnx', '.xml') or args.out.suffix == '.onnx' and args.precision != 'int8':
            raise ConfigError(f'{args.out} in {args.precision} is not what this tool makes: a .xml is, in '
                              f'{", ".join(PRECISIONS)}, or a .onnx in int8')
        cfg = load_config(args)
        file, batches = open_exported(args.file), ()
        if args.precision == 'int8':
            check_data(cfg, 'test_dataloader')
            set_pretrain_dataloaders(cfg)
            exported = ExportedModel(build_model(cfg), file)
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
            batches = (exported.prepare(batch)[0] for batch in islice(loader, args.batches))
        if args.out.suffix == '.onnx':
            quantize_onnx(args.file, args.out, batches)
        else:
            write_openvino(args.file, args.out, args.precision, batches)
    print(f'written to: {args.out}')


if __name__ == '__main__':
    main()
