"""Time of backbones against the side of a square image, with fitted exponents and a log-log plot.

    python -m benchmarks.scaling [--networks slak hornet-gf resnet50 ...] [--sides 224 448 ...]

Beside our networks stand ResNet-50, ConvNeXt-T and Swin-T of mmpretrain. All are timed in turns at each side. The
exponent is that of the side, fitted from 448 pixels on: 2 is linear in the number of pixels, 4 is quadratic.
"""
import math
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from torch import nn

from benchmarks.backbones import CASES
from benchmarks.median_times import median_times
from benchmarks.results import Results, header, line, make_parser
from plugconv_mm.visualization.grids import save_figure

OTHERS = {
    'resnet50': dict(type='mmpretrain.ResNet', depth=50, out_indices=(0, 1, 2, 3)),
    'convnext': dict(type='mmpretrain.ConvNeXt', arch='tiny', out_indices=(0, 1, 2, 3)),
    'swin': dict(type='mmpretrain.SwinTransformer', arch='tiny', out_indices=(0, 1, 2, 3), pad_small_map=True),
}
OURS = ('parc-resnet', 'parc-convnext', 'hornet-gf', 'slak', 'kw-resnet', 'transcnn')
SIDES = (224, 320, 448, 640, 896, 1280, 1792, 2048)
FIT_FROM = 448


def build(name: str) -> nn.Module:
    """Build a network of ours or mmpretrain's."""
    from plugconv_mm.registry import MODELS
    if name in OTHERS:
        return MODELS.build(dict(OTHERS[name])).eval()
    case = CASES[name].build
    return MODELS.build(case | dict(type=f'plugconv_mm.{case["type"]}')).eval()


def measure(networks: dict[str, nn.Module], side: int, seconds: float) -> dict[str, float]:
    """Milliseconds of each network for one image."""
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        return median_times({name: lambda network=network: network(image) for name, network in networks.items()},
                            seconds, rounds=3, warm_ups=1)


def exponent(times: dict[int, float]) -> float:
    """The slope of a straight line through logarithms of times over logarithms of sides."""
    points = [(math.log(side), math.log(time)) for side, time in times.items() if side >= FIT_FROM]
    if len(points) < 2:
        return math.nan
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x)**2 for a, _ in points)


def plot(path: Path, times: dict[str, dict[int, float]], title: str) -> None:
    """Draw the times of all networks into one log-log plot."""
    figure = Figure(figsize=(9, 6), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, of_sides) in enumerate(times.items()):
        axes.plot(list(of_sides), list(of_sides.values()), marker='.', color=f'C{number}',
                  linestyle='--' if name in OTHERS else '-', label=f'{name}: N^{exponent(of_sides):.2f}')
    sides = sorted({side for of_sides in times.values() for side in of_sides})
    axes.set(xscale='log', yscale='log', xlabel='side N of the image, pixels', ylabel='milliseconds', title=title)
    axes.set_xticks(sides)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter('{x:g}')
    axes.grid(alpha=0.3, which='both')
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__, 'scaling')
    parser.add_argument('--networks', nargs='+', choices=(*CASES, *OTHERS), default=(*OURS, *OTHERS), metavar='NAME')
    parser.add_argument('--sides', nargs='+', type=int, default=SIDES, metavar='N')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    networks = {name: build(name) for name in args.networks}
    header('side', *args.networks)
    times = {name: {} for name in networks}
    for side in args.sides:
        row = results.row(f'{side}: {" ".join(networks)}', lambda side=side: measure(networks, side, args.seconds))
        for name, time in row.items():
            times[name][side] = time
        line(side, *map(round, row.values()))
    line('exponent', *(f'{exponent(of_sides):.2f}' for of_sides in times.values()))
    picture = args.out.with_suffix('.png')
    plot(picture, times, f'Backbones, one image, float32; {", ".join(results.machine.values())}')
    print(f'plot: {picture}')


if __name__ == '__main__':
    main()
