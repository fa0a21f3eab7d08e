"""Discrete Fourier transforms as products with real matrices, for graphs that know neither FFTs nor complex numbers.

A complex map is kept as its real and its imaginary part, one after the other along the axis of the transform. All
transforms are orthonormal: the inverse of :func:`dft_matrix` is its transpose.
"""
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def rdft_matrix(length: int, like: Tensor) -> Tensor:
    """The matrix (N, 2 (N // 2 + 1)) that takes N = `length` real numbers, x (..., N), to their half spectrum.

    In ``x @ matrix`` real parts come first, then imaginary parts. Device and type are those of `like`.
    """
    angle = _angles(length, length // 2 + 1).T
    return torch.cat((angle.cos(), -angle.sin()), dim=1).div(length**0.5).to(like)


def irdft_matrix(length: int, like: Tensor) -> Tensor:
    """The inverse (2 (N // 2 + 1), N) of :func:`rdft_matrix`, from a half spectrum to N = `length` real numbers."""
    angle = _angles(length, length // 2 + 1)
    # Each frequency but the first, and the last of an even length, stands for two. An exporter may not know the length.
    k = torch.arange(length // 2 + 1)
    count = torch.where((k == 0) | (2 * k == length), 1, 2)[:, None].to(angle)
    return torch.cat((count * angle.cos(), -count * angle.sin())).div(length**0.5).to(like)


def dft_matrix(length: int, like: Tensor) -> Tensor:
    """The matrix (2 N, 2 N) that takes N = `length` complex numbers, x (2 N, ...), to their spectrum ``matrix @ x``."""
    angle = _angles(length, length)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1))).div(length**0.5).to(like)


def kept(matrix: Callable[[int, Tensor], Tensor], length: int, like: Tensor) -> Tensor:
    """One of the matrices above from a cache, for calls that no tracer sees."""
    return _kept(matrix, length, like.device, like.dtype)


@functools.lru_cache(32)
def _kept(matrix: Callable[[int, Tensor], Tensor], length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a tensor of that mode serves no gradients
        return matrix(length, torch.empty(0, device=device, dtype=dtype))


def _angles(length: int, frequencies: int) -> Tensor:
    """The angles 2π k n / N as (K, N), with k n reduced modulo N so that long transforms stay exact.

    Rows beyond K = `frequencies` are not made and cut off: an exporter may not know the size of a part.
    """
    n, k = torch.arange(length), torch.arange(frequencies)
    return (k[:, None] * n % torch.full_like(n, length)).double() * (2 * math.pi / length)
