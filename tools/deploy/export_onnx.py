"""Take a trained model to ONNX, or to compiled code: the file is checked against PyTorch, and both are timed.

Classifiers leave whole, up to scores, segmentors up to labels of pixels, detectors up to boxes with scores, labels and
masks. The input is a batch, of any number, of images of one size; how they are prepared is in the file's metadata.
demo/onnx_infer.py runs the file without PyTorch.
"""
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from plugconv_mm.errors import ConfigError, ExportError
from plugconv_mm.export import LABELS, OPSET, TOLERANCE, export_inductor, export_onnx
from plugconv_mm.export.exported_model import ExportedModel
from plugconv_mm.export.matching import SCORE, read_images
from plugconv_mm.export.placement import placement_of
from plugconv_mm.export.runtimes import open_exported
from plugconv_mm.export.side_by_side import compare_figures, evaluate_side_by_side
from plugconv_mm.runtime.check_data import check_data
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors
from plugconv_mm.runtime.weights import build_with_weights

SHOWN = 0.3  # score from which demo/onnx_infer.py draws a box


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--shape', nargs=2, type=int, required=True, metavar=('H', 'W'),
                        help='height and width of the images, in pixels')
    parser.add_argument('--images', nargs='+', type=Path, metavar='FILE',
                        help='two images or more on which the detections of the file are compared with those of '
                        'PyTorch, resized to the shape (default: random ones, in which little is found)')
    parser.add_argument('--dynamic', choices=['batch', 'batch,size'], default='batch', help='what may change: the '
                        'number of images, or their size, too (default: %(default)s)')
    parser.add_argument('--uint8', action='store_true', help='take pixels as OpenCV reads them, (batch, H, W, 3) BGR, '
                        'and normalise and pad them inside the file (default: normalised images, (batch, 3, H, W))')
    parser.add_argument('--raw', action='store_true', help='leave out the last step: the suppression of a detector '
                        'with a dense head, for runtimes without it; softmax or the choice of the label')
    parser.add_argument('--paste-masks', action='store_true',
                        help='give masks of pixels (batch, K, H, W), and not of boxes')
    parser.add_argument('--opset', type=int, default=OPSET, help='version of the operators (default: %(default)s)')
    parser.add_argument('--features', action='store_true', help='export backbone and neck of a detector alone')
    parser.add_argument('--out', type=Path, help='file to write, .onnx or .pt2, compiled code for PyTorch '
                        '(default: CHECKPOINT with the suffix .onnx)')
    parser.add_argument('--evaluate', action='store_true', help="run the config's test on the file, beside PyTorch")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('export_onnx.py'):
        cfg = load_config(args)
        if args.evaluate:
            check_data(cfg, 'test_dataloader')
        model = build_with_weights(cfg, args.checkpoint)
        path = args.out or Path(args.checkpoint).with_suffix('.onnx')
        try:
            images = args.images and read_images(args.images, model.data_preprocessor, tuple(args.shape), args.uint8)
            export = export_inductor if path.suffix == '.pt2' else partial(export_onnx, opset=args.opset)
            report = export(
                model, path, args.shape, images=images, features=args.features, raw=args.raw, uint8=args.uint8,
                paste_masks=args.paste_masks, any_size=args.dynamic == 'batch,size',
                metadata=dict(score_thr=SHOWN, **placement_of(cfg)))
        except ExportError as error:
            raise ConfigError(f'{args.config}: {error}') from error
    print(f'exported:   {report.part}\n'
          f'input:      input ({", ".join(map(str, report.input))})')
    for name, shape in report.outputs.items():
        print(f'output:     {name} ({", ".join(map(str, shape))})')
    if report.compared is not None:
        print(f'compared:   {report.compared} detections with scores above {SCORE}, all found by both; scores differ '
              f'by {report.difference:.1e} at most')
    elif list(report.outputs) == ['labels']:
        print(f'difference: {report.difference:.1e} of the labels, of {LABELS:.0e} allowed')
    else:
        print(f'difference: {report.difference:.1e} deviations of the output, of {TOLERANCE:.0e} allowed')
    print(f'time:       {report.torch_ms:.1f} ms in PyTorch, {report.other_ms:.1f} ms in {report.runtime} '
          '(medians, one image, CPU)\n'
          f'written to: {report.path}')
    if args.evaluate:
        with plain_errors('export_onnx.py'):
            forms = {'PyTorch': model, report.runtime: ExportedModel(model, open_exported(report.path))}
            print(compare_figures(cfg, forms, evaluate_side_by_side(cfg, forms)))


if __name__ == '__main__':
    main()
