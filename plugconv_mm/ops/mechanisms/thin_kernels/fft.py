"""Depthwise convolutions as products of spectra along the long side of the kernel, or along both if both are long.

Lines are padded with zeros to a length whose factors are small. Half types are computed in float32.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.ops.mechanisms.thin_kernels.bilinear import Form
from plugconv_mm.ops.mechanisms.thin_kernels.chunks import in_chunks

# Kernels whose short side is longer are transformed along both sides.
_SHORT = 7


def good_length(least: int) -> int:
    """The smallest number from `least` on that has no prime factor above 5."""
    length = max(least, 1)
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve maps (N, C, H, W) with kernels (C, 1, kh, kw)."""
    return in_chunks(_convolve, x, weight)


def kernel_gradient(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Gradient of kernels (C, 1, kh, kw) from the map and the output's gradient, both (N, C, H, W)."""
    height, width = kernel_size
    if not x.numel():
        return x.new_zeros(x.shape[1], 1, height, width)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    maps, grads = x.to(dtype), grad.to(dtype)
    if min(height, width) > _SHORT:
        of_kernel = _gradient_along_both(maps, grads, kernel_size)
    elif height > width:
        of_kernel = _gradient_along_rows(maps.mT, grads.mT, (width, height)).mT
    else:
        of_kernel = _gradient_along_rows(maps, grads, kernel_size)
    return of_kernel[:, None].to(x.dtype)


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    height, width = weight.shape[2:]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    maps, kernel = x.to(dtype), weight.to(dtype)
    if min(height, width) > _SHORT:
        return _along_both(maps, kernel)
    if height > width:
        return _along_rows(maps.mT, kernel.mT).mT
    return _along_rows(maps, kernel)


def _along_rows(x: Tensor, weight: Tensor) -> Tensor:
    height, width = x.shape[2:]
    kernel = _reaching(weight[:, 0], 2, width)
    short, far = kernel.shape[1] // 2, kernel.shape[2] // 2
    length = good_length(width + far)
    spectrum = torch.fft.rfft(x.contiguous(), n=length)
    of_kernel = torch.fft.rfft(_centred(kernel, 2, length)).conj()
    total = spectrum * of_kernel[:, short, None]
    for offset in range(-short, short + 1):
        if 0 < abs(offset) < height:
            here, there = _overlap(-offset, height), _overlap(offset, height)
            total[:, :, here].addcmul_(spectrum[:, :, there], of_kernel[:, short + offset, None])
    return torch.fft.irfft(total, n=length)[..., :width]


def _along_both(x: Tensor, weight: Tensor) -> Tensor:
    height, width = x.shape[2:]
    kernel = _reaching(_reaching(weight[:, 0], 1, height), 2, width)
    sides = good_length(height + kernel.shape[1] // 2), good_length(width + kernel.shape[2] // 2)
    of_kernel = torch.fft.rfft2(_centred(_centred(kernel, 1, sides[0]), 2, sides[1])).conj()
    spectrum = torch.fft.rfft2(x.contiguous(), s=sides).mul_(of_kernel)
    return torch.fft.irfft2(spectrum, s=sides)[:, :, :height, :width]


def _gradient_along_rows(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    height, width = x.shape[2:]
    short, far = kernel_size[0] // 2, min(kernel_size[1] // 2, width - 1)
    length = good_length(width + far)
    spectrum, of_grad = (torch.fft.rfft(t.contiguous(), n=length) for t in (x, grad))
    of_grad = of_grad.conj()
    of_kernel = spectrum.new_zeros(x.shape[1], kernel_size[0], spectrum.shape[3])
    for offset in range(-short, short + 1):
        if abs(offset) < height:
            here, there = _overlap(-offset, height), _overlap(offset, height)
            of_kernel[:, short + offset] = (spectrum[:, :, there] * of_grad[:, :, here]).sum((0, 2))
    return _cut(torch.fft.irfft(of_kernel, n=length), 2, far, kernel_size[1])


def _gradient_along_both(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    height, width = x.shape[2:]
    tall, far = min(kernel_size[0] // 2, height - 1), min(kernel_size[1] // 2, width - 1)
    sides = good_length(height + tall), good_length(width + far)
    spectrum, of_grad = (torch.fft.rfft2(t.contiguous(), s=sides) for t in (x, grad))
    of_kernel = torch.fft.irfft2((spectrum * of_grad.conj()).sum(0), s=sides)
    return _cut(_cut(of_kernel, 1, tall, kernel_size[0]), 2, far, kernel_size[1])


def _overlap(offset: int, length: int) -> slice:
    """The positions that have another one of the same line at `offset` before them."""
    return slice(max(offset, 0), length + min(offset, 0))


def _reaching(kernel: Tensor, dim: int, length: int) -> Tensor:
    """The part of kernels (C, kh, kw) that reaches from one position of a line to another."""
    beyond = max(kernel.shape[dim] // 2 - (length - 1), 0)
    return kernel.narrow(dim, beyond, kernel.shape[dim] - 2 * beyond)


def _centred(kernel: Tensor, dim: int, length: int) -> Tensor:
    """Kernels with zeros up to a length, and turned so that their centre comes first."""
    after = [0, 0] * (2 - dim) + [0, length - kernel.shape[dim]]
    return F.pad(kernel, after).roll(-(kernel.shape[dim] // 2), dim)


def _cut(lags: Tensor, dim: int, far: int, length: int) -> Tensor:
    """Kernels of a length from correlations by lag, of which those up to `far` are known to be whole."""
    of_kernel = lags.roll(far, dim).narrow(dim, 0, 2 * far + 1)
    beyond = length // 2 - far
    return F.pad(of_kernel, [0, 0] * (2 - dim) + [beyond, beyond])


FORM = Form(convolve, kernel_gradient)
