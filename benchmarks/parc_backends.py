"""ParC's three backends, the one that `auto` picks, and a 7x7 depthwise convolution, over map sizes.

    python -m benchmarks.parc_backends [--dense] [--training] [--batch B] [--layout channels_last] [--dtype float16] ...

It prints a table and saves a log-log plot of cost against the map's side, with crossings marked. The times are medians
of calls in turns; in evaluation the kernel's transform is cached, as it is in use.
"""
import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.median_times import median_times
from plugconv_mm.ops import ParC2d
from plugconv_mm.ops.parc.backends import BACKENDS

RESOLUTIONS = (7, 14, 28, 56, 84, 112, 168, 224, 336)
# Maps of a 1333x800 evaluation at strides 4 to 32: (height, width, channels of a tiny ConvNeXt, of a ResNet-50's half)
EVALUATION = ((200, 336, 96, 32), (100, 168, 192, 64), (50, 84, 384, 128), (25, 42, 768, 256))


def candidates(direction: str, batch: int, channels: int, height: int, width: int,
               args: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], str]:
    """Make calls of the three backends, auto and a 7x7 convolution on one map.

    Returns:
        The calls by name, and the backend that auto picks.
    """
    device, dtype = args.device, getattr(torch, args.dtype)
    layout = getattr(torch, args.layout)
    x = torch.randn(batch, channels, height, width, device=device, dtype=dtype).contiguous(memory_format=layout)
    upstream = torch.randn_like(x)
    groups = 1 if args.dense else channels
    layers = {b: ParC2d(channels, direction, 14, groups=groups, backend=b) for b in (*BACKENDS, 'auto')}
    length = height if direction == 'H' else width
    if (channels * length)**2 * x.element_size() > 2**30 and args.dense:
        del layers['gemm']  # a dense circulant of more than a gigabyte
    layers['7x7'] = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
    calls = {}
    for name, layer in layers.items():
        layer.to(device, dtype).train(args.training)
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=layout)
        calls[name] = train_step(layer, x, upstream) if args.training else inference(layer, x)
    with torch.inference_mode(not args.training):
        chosen = layers['auto'].select_backend(x.clone().requires_grad_(args.training))
    return calls, chosen


def inference(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Make a call of a layer without gradients."""
    def call() -> None:
        with torch.inference_mode():
            layer(x)
    return call


def train_step(layer: nn.Module, x: Tensor, upstream: Tensor) -> Callable[[], None]:
    """Make a call that computes the gradients of a layer's input and parameters."""
    x = x.clone().requires_grad_()
    wanted = [x, *layer.parameters()]

    def call() -> None:
        torch.autograd.grad(layer(x), wanted, upstream)
    return call


def measure(args: argparse.Namespace) -> list[dict]:
    """Time each shape and direction, and print a row for each."""
    maps = [(n, n, args.channels) for n in RESOLUTIONS if n <= args.largest]
    maps += [(h, w, dense if args.dense else depthwise) for h, w, depthwise, dense in EVALUATION if w <= args.largest]
    rows = []
    for height, width, channels in maps:
        for direction in 'HW':
            calls, chosen = candidates(direction, args.batch, channels, height, width, args)
            times = median_times(calls, args.seconds, device=args.device)
            best = min(times[b] for b in BACKENDS if b in times)
            rows.append(dict(direction=direction, channels=channels, height=height, width=width, times=times,
                             chosen=chosen, lost=times[chosen] / best - 1))
            print(line(rows[-1], args.batch), flush=True)
    return rows


def line(row: dict, batch: int) -> str:
    """Format a row of the table, with times in milliseconds."""
    shape = f'{batch}x{row["channels"]}x{row["height"]}x{row["width"]}'
    cells = [f'{row["times"][c]:9.3f}' if c in row['times'] else f'{"-":>9}' for c in (*BACKENDS, 'auto', '7x7')]
    ratio = row['times']['auto'] / row['times']['7x7']
    return f'{shape:<16} {row["direction"]}  {"".join(cells)}   {row["chosen"]:<8}{row["lost"]:>6.0%}  {ratio:8.2f}'


def crossings(sides: Sequence[float], a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Find the sides at which the polylines of two curves cross in a log-log plot."""
    found = []
    gaps = [math.log(p / q) for p, q in zip(a, b, strict=True)]
    for (n0, g0), (n1, g1) in zip(zip(sides, gaps, strict=True), zip(sides[1:], gaps[1:], strict=True), strict=False):
        if g0 * g1 < 0:
            found.append(math.exp(math.log(n0) + g0 / (g0 - g1) * math.log(n1 / n0)))
    return found


def plot(rows: list[dict], args: argparse.Namespace) -> None:
    """Plot cost against the side of square maps, with a panel for each direction."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout='constrained')
    styles = dict(spatial=('C0', 'spatial'), fft=('C3', 'fft (Fast-ParC)'), gemm=('C2', 'gemm (circulant)'))
    for panel, direction in zip(panels, 'HW', strict=True):
        square = [r for r in rows if r['height'] == r['width'] and r['direction'] == direction]
        sides = [r['height'] for r in square]
        curves = {b: [r['times'].get(b, math.nan) for r in square] for b in (*BACKENDS, 'auto', '7x7')}
        for backend, (color, label) in styles.items():
            panel.plot(sides, curves[backend], color=color, label=label, marker='.')
        panel.plot(sides, curves['7x7'], color='0.5', linestyle='--', label='7x7 depthwise convolution')
        panel.scatter(sides, curves['auto'], s=90, facecolors='none', edgecolors='black', label='auto', zorder=3)
        level = 0.03
        for other in ('spatial', 'gemm'):
            for n in crossings(sides, curves['fft'], curves[other])[-1:]:  # earlier ones come from noise
                panel.axvline(n, color=styles[other][0], linestyle=':', linewidth=1)
                panel.text(n, level, f' fft = {other} at {n:.0f}', color=styles[other][0], rotation=90,
                           va='bottom', ha='right', fontsize=8, transform=panel.get_xaxis_transform())
        panel.set(xscale='log', yscale='log', xlabel='side N of the map', title=f'along {direction}')
        panel.set_xticks(sides)
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_formatter('{x:g}')
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('milliseconds')
    panels[0].legend(fontsize=9, loc='upper left')
    kind = 'dense' if args.dense else 'depthwise'
    mode = 'forward and backward' if args.training else 'inference'
    layout = args.layout.removesuffix('_format')
    figure.suptitle(f'{kind} ParC, {args.batch}x{args.channels}xNxN, {args.dtype}, {layout}, {mode}, {args.device}' +
                    (f', {args.threads} threads' if args.device == 'cpu' else ''))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=120)
    print(f'plot: {args.out}')


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--channels', type=int, help='of the square maps; default 96, or 32 with --dense')
    parser.add_argument('--dense', action='store_true', help='groups=1, as in ParC-ResNet; default depthwise')
    parser.add_argument('--training', action='store_true', help='time forward and backward')
    parser.add_argument('--dtype', choices=('float32', 'float64', 'bfloat16', 'float16'), default='float32')
    parser.add_argument('--layout', choices=('contiguous_format', 'channels_last'), default='contiguous_format')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seconds', type=float, default=0.5, help='about how long to time each row')
    parser.add_argument('--largest', type=int, default=336, help='leave out wider maps')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/parc.png'), help='where the plot goes')
    args = parser.parse_args()
    args.channels = args.channels or (32 if args.dense else 96)
    torch.set_num_threads(args.threads)
    print(f'{"map":<16} {"":<3}' + ''.join(f'{c:>9}' for c in (*BACKENDS, 'auto', '7x7')) +
          f'   {"picked":<8}{"lost":>6}  auto/7x7')
    rows = measure(args)
    worst = max(rows, key=lambda r: r['lost'])
    print(f'times in ms. What auto picked cost at most {worst["lost"]:.0%} more than the best of the three '
          f'({sum(r["lost"] <= 0.15 for r in rows)} of {len(rows)} rows within 15%).')
    plot(rows, args)


if __name__ == '__main__':
    main()
