"""Draw the receptive fields of the operators, for docs/operators.

A position's contribution is the gradient of the map's central units with respect to it, of an operator with random
weights, on noise. See plugconv_mm/analysis/receptive_field.py.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import plugconv_mm  # noqa: F401  of mmdet's models, one needs an operator of mmcv that we stand in for
from plugconv_mm.analysis.receptive_field import contributions
from plugconv_mm.ops import HMHSA, DecomposedLargeKernelConv2d, GnConv2d, KWConv2d, ParC2d, ParCHW2d
from plugconv_mm.visualization import plot_contributions

OUT = Path(__file__).resolve().parents[2] / 'docs/images/operators'


class FirstStep(nn.Module):
    """Output of the first step of H-MHSA, the attention inside windows."""

    def __init__(self, attention: HMHSA) -> None:
        super().__init__()
        self.attention = attention
        attention.grid_norm.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        self.attention(x)
        return self.output


class FinestLevel(nn.Module):
    """The finest output of a pyramid over a map and its means over 2x2, 4x4 and 8x8 positions.

    Args:
        neck: Takes the four maps.
        alone: Whether the coarser maps count as given, so that they carry no gradients.
    """

    def __init__(self, neck: nn.Module, alone: bool) -> None:
        super().__init__()
        self.neck, self.alone = neck, alone

    def forward(self, x: Tensor) -> Tensor:
        source = x.detach() if self.alone else x
        return self.neck((x, *(F.avg_pool2d(source, r) for r in (2, 4, 8))))[0]


def parc(channels: int, direction: str) -> nn.Module:
    return ParC2d(channels, direction, meta_size=14, backend='spatial')


def gnconv(channels: int, **kwargs) -> nn.Module:
    return GnConv2d(channels, order=3, scale=1 / 3, **kwargs)


def large_kernel(channels: int) -> nn.Module:
    return DecomposedLargeKernelConv2d(channels, kernel_size=51)


def kernel_warehouse(channels: int, temperature: float = 0.) -> nn.Module:
    conv = KWConv2d(channels, channels, 3, padding=1)
    conv.warehouse.set_temperature(temperature)
    return nn.Sequential(nn.ReLU(), conv)  # the attention is made for features whose means are not zero


def hmhsa(channels: int, grid_size: int = 8, pool_ratio: int = 4) -> nn.Module:
    return HMHSA(channels, grid_size, pool_ratio, head_width=channels)


def pyramid(channels: int, alone: bool = False, **kwargs) -> nn.Module:
    from mmdet.models.necks import FPN

    from plugconv_mm.models.necks import HorFPN
    neck = HorFPN if kwargs else FPN
    return FinestLevel(neck([channels] * 4, channels, num_outs=4, **kwargs), alone)


# For each image its panels, and how to make the layer of each with a number of channels.
FIGURES = {
    'parc': {
        'ParC-H': lambda c: parc(c, 'H'),
        'ParC-W': lambda c: parc(c, 'W'),
        'ParC-H and ParC-W, half the channels each': lambda c: ParCHW2d(c, meta_size=14, backend='spatial'),
        'ParC-H, then ParC-W': lambda c: nn.Sequential(parc(c, 'H'), parc(c, 'W')),
    },
    'gnconv': {
        '7×7': gnconv,
        'two of them in turn': lambda c: nn.Sequential(gnconv(c), gnconv(c)),
        'global filter, weights of 56×29': lambda c: gnconv(c, filter='gf', filter_size=(56, 29)),
        'global filter, weights of 14×8, stretched': lambda c: gnconv(c, filter='gf', filter_size=(14, 8)),
    },
    'large_kernel': {
        '7×7 depthwise convolution': lambda c: nn.Conv2d(c, c, 7, padding=3, groups=c),
        '51×5 + 5×51 + 5×5': large_kernel,
        'two of them in turn': lambda c: nn.Sequential(large_kernel(c), large_kernel(c)),
    },
    'kernel_warehouse': {
        '3×3 convolution': lambda c: nn.Conv2d(c, c, 3, padding=1),
        'KernelWarehouse 3×3, τ = 1': lambda c: kernel_warehouse(c, 1.),
        'KernelWarehouse 3×3, τ = 0': kernel_warehouse,
        'two of them in turn': lambda c: nn.Sequential(kernel_warehouse(c), kernel_warehouse(c)),
    },
    'hmhsa': {
        'first step, G = 8': lambda c: FirstStep(hmhsa(c)),
        'both steps, r = 4': hmhsa,
        'two of them in turn': lambda c: nn.Sequential(hmhsa(c), hmhsa(c)),
        'G = 1, plain attention': lambda c: hmhsa(c, 1, 1),
    },
    'horfpn': {
        'FPN, through the finest map': lambda c: pyramid(c, alone=True),
        'HorFPN 7×7, through the finest map': lambda c: pyramid(c, alone=True, filter='7x7'),
        'HorFPN GF, through the finest map': lambda c: pyramid(c, alone=True, filter='gf'),
        'FPN': pyramid,
        'HorFPN 7×7': lambda c: pyramid(c, filter='7x7'),
        'HorFPN GF': lambda c: pyramid(c, filter='gf'),
    },
}


def field(name: str, panel: str, size: int = 56, channels: int = 64, number: int = 4) -> np.ndarray:
    """The contributions (size, size) to the centre of one layer's map.

    Args:
        name: Of the image, a key of :data:`FIGURES`.
        panel: Its title there.
        size: Side of the map.
        channels: Of the map.
        number: Maps of noise to take the mean over.
    """
    torch.manual_seed(0)
    layer = FIGURES[name][panel](channels).eval().requires_grad_(False)
    return contributions(layer, (torch.randn(1, channels, size, size) for _ in range(number)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=OUT, metavar='DIR', help='where to put them (default: %(default)s)')
    parser.add_argument('--only', nargs='+', choices=FIGURES, default=FIGURES, help='some of them (default: all)')
    args = parser.parse_args(argv)
    try:
        for name in args.only:
            panels = {}
            for title in FIGURES[name]:
                contributed = field(name, title)
                panels[f'{title}\n{(contributed > 0).sum()} of {contributed.size} positions'] = contributed, {}
            plot_contributions(args.out / f'{name}.png', panels, columns=2 if len(panels) == 4 else 3)
            print(f'written: {args.out / name}.png')
    except OSError as error:
        sys.exit(f'draw_operators.py: error: cannot write to {args.out}: {error}')


if __name__ == '__main__':
    main()
