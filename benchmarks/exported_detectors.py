"""Whole detectors in PyTorch and as exported files, side by side.

    python -m benchmarks.exported_detectors [CONFIG ...] [--shape H W] [--threads N] [--formats …] [--out FILE.json]

Each config is built with random weights and exported to every format; one image is then given to all of them in turns,
in one process. A row has the median of eager PyTorch in milliseconds, and the ratio of each format to it: less than 1
is faster. Results are added to the JSON file, and what it has is not measured again.
"""
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.median_times import median_times
from benchmarks.results import Results, header, line, make_parser
from plugconv_mm.analysis import build_model
from plugconv_mm.errors import ExportError
from plugconv_mm.export import export_inductor, export_onnx
from plugconv_mm.export.onnx_int8 import quantize_onnx
from plugconv_mm.export.openvino_file import write_openvino
from plugconv_mm.export.prepared import prepare
from plugconv_mm.export.runtimes import open_exported
from plugconv_mm.runtime.read_config import read_config

CONFIGS = ('configs/parc/mask-rcnn_parc-resnet50_fpn_ms-480-800-1x_coco.py',
           'configs/slak/cascade-mask-rcnn_slak-tiny_fpn_ms-480-800-1x_coco.py',
           'configs/hornet/cascade-mask-rcnn_hornet-tiny-gf_fpn_ms-480-800-3x_coco.py')
FORMATS = ('onnx', 'onnx int8', 'openvino float32', 'openvino bfloat16', 'openvino int8', 'aotinductor')


def files_of(model: torch.nn.Module, shape: tuple[int, int], formats: Sequence[str], folder: Path) -> dict[str, Path]:
    """Export a model to formats; those that fail are said and left out."""
    onnx, images = folder / 'model.onnx', torch.randint(256, (2, *shape, 3), dtype=torch.uint8)
    makers = {
        'onnx': lambda path: path.write_bytes(onnx.read_bytes()),
        'onnx int8': lambda path: quantize_onnx(onnx, path, [images]),
        'aotinductor': lambda path: export_inductor(model, path, shape, images=images, uint8=True),
        **{f'openvino {precision}': lambda path, precision=precision: write_openvino(onnx, path, precision, [images])
           for precision in ('float32', 'bfloat16', 'int8')}}
    suffixes = dict(openvino='.xml', aotinductor='.pt2', onnx='.onnx')
    export_onnx(model, onnx, shape, images=images, uint8=True)
    files = {}
    for name in formats:
        path = folder / f'{name.replace(" ", "-")}{suffixes[name.split()[0]]}'
        try:
            makers[name](path)
            files[name] = path
        except ExportError as error:
            print(f'{name}: {error}', flush=True)
    return files


def measure(config: str, shape: tuple[int, int], formats: Sequence[str], seconds: float) -> dict[str, float]:
    """Milliseconds of eager PyTorch, and of each format, for one image."""
    torch.manual_seed(0)
    model = build_model(read_config(config)).eval()
    prepared = prepare(model, shape, uint8=True)
    image = prepared.images[:1]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        runs = {name: open_exported(path).run for name, path in files_of(model, shape, formats, Path(folder)).items()}
        runs = {'pytorch': prepared.deployed, **runs}
        return median_times({name: lambda run=run: run(image) for name, run in runs.items()}, seconds)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, 'exported_detectors')
    parser.add_argument('configs', nargs='*', default=CONFIGS)
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1344], metavar=('H', 'W'))
    parser.add_argument('--formats', nargs='+', choices=FORMATS, default=FORMATS, metavar='FORMAT')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    header('Config', 'Image', 'PyTorch, ms', *args.formats)
    for config in args.configs:
        image = '×'.join(map(str, args.shape))
        times = results.row(f'{config} {image} {", ".join(args.formats)}', lambda config=config: measure(
            config, tuple(args.shape), args.formats, args.seconds))
        line(Path(config).stem, image, f'{times["pytorch"]:.0f}',
             *(times[name] / times['pytorch'] if name in times else '' for name in args.formats))


if __name__ == '__main__':
    main()
