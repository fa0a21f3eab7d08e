"""Depthwise convolutions a few channels at a time, so that on a CPU what they make on the way stays in the cache."""
from collections.abc import Callable

import torch
from torch import Tensor

# Maps of so many bytes are convolved at a time on a CPU.
_CHUNK_BYTES = 2**20


def in_chunks(convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    """Convolve maps (N, C, H, W) with kernels (C, 1, kh, kw); the output lies in memory as the map does."""
    out = torch.empty_like(x)
    if not x.numel():
        return out
    step = x.shape[1]
    if x.device.type == 'cpu':
        step = max(_CHUNK_BYTES * step // (x.numel() * x.element_size()), 1)
    for part, target, kernels in zip(x.split(step, 1), out.split(step, 1), weight.split(step), strict=True):
        target.copy_(convolve(part, kernels))
    return out
