"""Take a trained model to ONNX: the file is checked against PyTorch in ONNX Runtime, and both are timed.

Classifiers and segmentors leave whole, up to their logits, detectors with a dense head or proposals up to boxes with
scores, labels and masks. The input is a batch of any size of normalised images of one size; mean, std and order of
their channels are in the file's metadata.
"""
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from plugconv_mm.errors import ConfigError, ExportError
from plugconv_mm.export import TOLERANCE, export_onnx
from plugconv_mm.export.matching import SCORE, read_images
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors
from plugconv_mm.runtime.weights import build_with_weights


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--shape', nargs=2, type=int, required=True, metavar=('H', 'W'),
                        help='height and width of the images, in pixels')
    parser.add_argument('--images', nargs='+', type=Path, metavar='FILE',
                        help='two images or more on which the detections of the file are compared with those of '
                        'PyTorch, resized to the shape (default: random ones, in which little is found)')
    parser.add_argument('--features', action='store_true', help='export backbone and neck of a detector alone')
    parser.add_argument('--out', type=Path, help='file to write (default: CHECKPOINT with the suffix .onnx)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('export_onnx.py'):
        cfg = load_config(args)
        model = build_with_weights(cfg, args.checkpoint)
        path = args.out or Path(args.checkpoint).with_suffix('.onnx')
        try:
            images = args.images and read_images(args.images, model.data_preprocessor, tuple(args.shape))
            report = export_onnx(model, path, args.shape, (model.dataset_meta or {}).get('classes'), images,
                                 args.features)
        except ExportError as error:
            raise ConfigError(f'{args.config}: {error}') from error
    print(f'exported:   {report.part}\n'
          f'input:      input (batch, 3, {args.shape[0]}, {args.shape[1]})')
    for name, shape in report.outputs.items():
        print(f'output:     {name} ({", ".join(map(str, shape))})')
    print(f'difference: {report.difference:.1e} deviations of the output, of {TOLERANCE:.0e} allowed'
          if report.compared is None else
          f'compared:   {report.compared} detections with scores above {SCORE}, all found by both; scores differ by '
          f'{report.difference:.1e} at most')
    print(f'time:       {report.torch_ms:.1f} ms in PyTorch, {report.onnx_ms:.1f} ms in ONNX Runtime '
          '(medians, one image, CPU)\n'
          f'written to: {report.path}')


if __name__ == '__main__':
    main()
