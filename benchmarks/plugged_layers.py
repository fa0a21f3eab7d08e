"""Layers as they are against the operators in their places, over the stages of a backbone.

    python -m benchmarks.plugged_layers [--shape H W] [--threads N]

The layers are the 3x3 convolutions of a ResNet-50 and the depthwise 7x7 ones of a ConvNeXt-T on the maps of one image.
A row has the time of the layer, and of each operator its time as a ratio: less than 1 is faster than the layer. Medians
of calls in turns, in evaluation mode, in float32.
"""
import argparse
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.median_times import median_times
from plugconv_mm.plugging import plug

LAYERS = {  # (channels, groups, kernel) of the stages at strides 4 to 32
    '3x3 of a ResNet-50': [(channels, 1, 3) for channels in (64, 128, 256, 512)],
    'depthwise 7x7 of a ConvNeXt-T': [(channels, channels, 7) for channels in (96, 192, 384, 768)],
}
OPERATORS = {
    'ParCHW2d': dict(type='ParCHW2d', meta_size='auto'),
    'GnConv2d, order 3': dict(type='GnConv2d', order=3),
    'GlobalLocalFilter': dict(type='GlobalLocalFilter', h='auto', w='auto'),
    'decomposed 31x31': dict(type='DecomposedLargeKernelConv2d', large_kernel=31),
    'whole 13x13': dict(type='LargeKernelConv2d', large_kernel=13),
    'KWConv2d': dict(type='KWConv2d'),
}


def ratios(channels: int, groups: int, kernel: int, size: tuple[int, int], seconds: float) -> tuple[float, dict]:
    """The time of a layer in milliseconds, and those of the operators that fit, as ratios to it."""
    x = torch.randn(1, channels, *size)
    models = {}
    for name, to in {'layer': None, **OPERATORS}.items():
        conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups)
        models[name] = model = nn.Sequential(nn.Conv2d(3, channels, 1), conv).eval()
        if to is not None and not plug(model, [dict(target='1', to=to, unfit='skip')], size).plugged:
            del models[name]
    with torch.inference_mode():
        times = median_times({name: lambda layer=model[1]: layer(x) for name, model in models.items()}, seconds)
    layer = times.pop('layer')
    return layer, {name: time / layer for name, time in times.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1344], metavar=('H', 'W'))
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seconds', type=float, default=2., help='least time for a row (default: 2)')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f'| Layer | Map | ms | {" | ".join(OPERATORS)} |\n{"| --- " * (3 + len(OPERATORS))}|')
    for name, layers in LAYERS.items():
        for stage, (channels, groups, kernel) in enumerate(layers):
            size = tuple(-(-side // 2**(stage + 2)) for side in args.shape)
            time, found = ratios(channels, groups, kernel, size, args.seconds)
            cells = [f'{found[operator]:.2f}' if operator in found else '' for operator in OPERATORS]
            print(f'| {name} | {channels}×{size[0]}×{size[1]} | {time:.2f} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
