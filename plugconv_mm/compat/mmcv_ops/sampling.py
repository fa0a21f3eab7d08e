"""Bilinear samples inside RoIs, as mmcv's RoI layers take them."""
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_NUMBERS_AT_ONCE = 2**24


class Axis(NamedTuple):
    """The sampling points of RoIs along one axis."""
    distance: Tensor
    """From the RoI's start, (K, bins, most points of a bin); those that are not real lie anywhere."""
    count: Tensor
    """Real points of a bin, (K, )."""

    @property
    def real(self) -> Tensor:
        """Which points are real, (K, most points of a bin)."""
        return torch.arange(self.distance.size(2), device=self.count.device) < self.count[:, None]


def sampling_axis(extent: Tensor, bins: int, sampling_ratio: int) -> Axis:
    """Place points in ``bins`` equal parts of ``extent`` pixels (K, ).

    A part has ``sampling_ratio`` points, or if that is 0 one for each pixel that it measures, rounded up.
    """
    step = extent / bins
    count = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil().clamp(min=0)
    most = sampling_ratio if sampling_ratio > 0 else max(int(count.max()), 1)
    start, point = (torch.arange(n, device=extent.device, dtype=extent.dtype) for n in (bins, most))
    fraction = (point + .5) / count.clamp(min=1)[:, None]
    return Axis((start[:, None] + fraction[:, None]) * step[:, None, None], count)


def slices(count: int, numbers_each: int) -> Iterator[slice]:
    """Divide ``count`` items so that ``numbers_each`` of every item of a slice stay within 2^24 together."""
    step = max(1, _NUMBERS_AT_ONCE // max(numbers_each, 1))
    return (slice(start, start + step) for start in range(0, count, step))


def corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find the four pixels around each point and their weights.

    A point beyond the border takes the border's value for as far as one pixel, and weighs nothing farther out.

    Returns:
        The pixels' numbers in a flat map and their weights, both of the points' shape and 4 in the order top left,
        top right, bottom left, bottom right.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.where(inside, 0).clamp(0, height - 1), x.where(inside, 0).clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    weights = torch.stack(((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right), dim=-1)
    top, left = top.long(), left.long()
    rows, columns = ((first, (first + 1).clamp(max=size - 1)) for first, size in ((top, height), (left, width)))
    pixels = torch.stack([row * width + column for row in rows for column in columns], dim=-1)
    return pixels, weights * inside[..., None]


def weighted_sums(input: Tensor, image: Tensor, pixels: Tensor, weights: Tensor) -> Tensor:
    """Sum weighted pixels of maps; autograd gives the gradients by the maps and by the weights.

    Args:
        input: Maps (N, C, H, W).
        image: The image of each RoI, (K, ).
        pixels: Numbers of pixels in a flat map, (K, bins, pixels of a bin).
        weights: Weights of the pixels, (K, bins, pixels of a bin).

    Returns:
        Sums (K, C, bins).
    """
    table = input.movedim(1, -1).reshape(-1, input.size(1))
    rows = image.long()[:, None, None] * (input.size(2) * input.size(3)) + pixels
    sums = F.embedding_bag(rows.flatten(0, 1), table, mode='sum', per_sample_weights=weights.flatten(0, 1))
    return sums.view(*rows.shape[:2], -1).transpose(1, 2)
