"""Depthwise convolutions as products with banded (Toeplitz) matrices, one for each channel and offset along the short
side: twice the multiply-adds or less, but by matrix products, which half precision has tensor cores for.

A map whose lines are short is multiplied as it is, line by line, with a square matrix of all offsets. Longer lines are
unfolded into tiles that overlap by the kernel's length less one, in which the map takes about twice its size.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.ops.mechanisms.long_kernels import kernel_gradient
from plugconv_mm.ops.mechanisms.thin_kernels.bilinear import Form
from plugconv_mm.ops.mechanisms.thin_kernels.chunks import in_chunks

# Lines up to this length, or up to twice the kernel's, are one tile; the rest in tiles of about the kernel's length.
_WHOLE_LINE = 96
_LEAST_TILE = 32
# So many offsets along the short side go into one product, whose output is as many maps.
_OFFSETS = 8


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve maps (N, C, H, W) with kernels (C, 1, kh, kw)."""
    if weight.shape[2] > weight.shape[3]:
        return in_chunks(lambda x, weight: _along_rows(x.mT, weight.mT).mT, x, weight)
    return in_chunks(_along_rows, x, weight)


def tile_of(length: int, kernel: int) -> int:
    """The number of positions of a line that go into one product."""
    return length if length <= max(_WHOLE_LINE, 2 * kernel) else max(kernel - 1, _LEAST_TILE)


def _along_rows(x: Tensor, weight: Tensor) -> Tensor:
    n, c, h, w = x.shape
    kernel = weight[:, 0]
    short, far = kernel.shape[1] // 2, kernel.shape[2] // 2
    tile = tile_of(w, kernel.shape[2])
    tiles = -(-w // tile)
    if tiles == 1:
        width, before = w, 0
        lines = x[:, :, :, None]
    else:
        width, before = tile + 2 * far, far
        lines = F.pad(x, (far, tiles * tile - w + far)).unfold(3, width, tile)  # (N, C, H, tiles, width)
    # Below each map and above the first are as many lines of zeros as the kernel reaches beyond a map; so all maps of a
    # channel are one, of which an offset along the short side selects consecutive lines.
    high = h + short
    rows = x.new_zeros(c, (short + n * high) * tiles, width)
    rows[:, short * tiles:].view(c, n, high, tiles, width)[:, :, :h].copy_(lines.transpose(0, 1))
    kept = (n * high - short) * tiles  # lines below the last map are not computed
    out = x.new_empty(c, n * high * tiles, tile)
    for start in range(0, 2 * short + 1, _OFFSETS):
        some = kernel[:, start:start + _OFFSETS]
        offsets = some.shape[1]
        part = rows[:, start * tiles:start * tiles + kept + (offsets - 1) * tiles]
        product = part @ _bands(some, width, tile, before)  # (C, lines, offsets · tile)
        channels, lines_, _ = product.stride()
        # Offset u adds its columns, u lines below.
        shifted = product.as_strided((c, kept, offsets, tile), (channels, lines_, tiles * lines_ + tile, 1))
        if start:
            out[:, :kept] += shifted.sum(2)
        else:
            torch.sum(shifted, 2, out=out[:, :kept])
    return out.view(c, n, high, tiles * tile)[:, :, :h, :w].transpose(0, 1)


def _bands(kernel: Tensor, width: int, tile: int, before: int) -> Tensor:
    """Matrices (C, width, offsets · tile) that take windows of a line to tiles of the output.

    Args:
        kernel: (C, offsets, length).
        width: Positions of a window.
        tile: Positions of a tile.
        before: Positions of a window before the tile.
    """
    c, offsets, length = kernel.shape
    # Output position o takes window position i times element i - o + length // 2 - before of the kernel. In `line`
    # that element stands at i - o + tile - 1.
    left = tile - 1 - length // 2 + before
    line = F.pad(kernel, (left, width + tile - 1 - length - left))  # a negative padding cuts off
    return line.unfold(2, width, 1).flip(2).permute(0, 3, 1, 2).reshape(c, width, offsets * tile)


FORM = Form(convolve, kernel_gradient)
