"""Depthwise convolutions with long, thin kernels on a CPU."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

# From this length on the layout in which a CPU convolves tall kernels best pays for the way into it and back, and
# gradients of kernels are faster by matrix products.
LONG = 21
# So many columns of a map go into one product, of which a band along the diagonal is needed.
_COLUMNS = 64
# Maps of so many bytes are convolved at a time, so that all copies of them stay in the cache.
_CHUNK_BYTES = 4 * 2**20


def tall_and_wide(x: Tensor, tall: Tensor, wide: Tensor, bias: Tensor) -> Tensor:
    """Sum of the depthwise tall and wide convolutions of x; channels-last in memory.

    CPUs have a fast path for tall kernels on contiguous maps, twice as fast as on channels-last ones. Wide kernels
    have none, but become tall on the transposed map.
    """
    long, short = tall.shape[2] // 2, tall.shape[3] // 2
    out = torch.empty_like(x, memory_format=torch.channels_last)
    of_channel = max(x[:, 0].numel() * x.element_size(), 1)
    step = max(_CHUNK_BYTES // of_channel // 16 * 16, 16)
    for part, target, t, w, b in zip(*(tensor.split(step, 1) for tensor in (x, out)),
                                     *(tensor.split(step) for tensor in (tall, wide.mT, bias)), strict=True):
        part = part.contiguous()
        y = F.conv2d(part, t, b, padding=(long, short), groups=len(t))
        y += F.conv2d(part.mT.contiguous(), w, padding=(long, short), groups=len(t)).mT
        target.copy_(y)
    return out


def _kernel_gradient(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Gradient of a depthwise kernel (C, 1, kh, kw) from the input and the output's gradient, both (N, C, H, W).

    For each offset u along the short side the products of all columns with all columns are summed over rows and
    samples by a matrix product; those that are v columns apart lie on one diagonal and make the gradient at (u, v).
    """
    kh, kw = kernel_size
    if kh > kw:
        return _kernel_gradient(x.mT, grad.mT, (kw, kh)).mT
    n, c, h, w = x.shape
    ph, pw = kh // 2, kw // 2
    grad = grad.permute(1, 3, 0, 2).reshape(c, w, n * h).contiguous()
    x = F.pad(x.permute(1, 0, 2, 3), (0, 0, ph, ph))
    of_rows = []
    for u in range(kh):
        shifted = x[:, :, u:u + h].reshape(c, n * h, w)
        total = 0
        for start in range(0, w, _COLUMNS):
            stop = min(start + _COLUMNS, w)
            low, high = max(start - pw, 0), min(stop + pw, w)
            products = F.pad(grad[:, start:stop] @ shifted[:, :, low:high], (low - start + pw, stop + pw - high))
            rows, columns, one = products.stride()
            total = total + products.as_strided((c, stop - start, kw), (rows, columns + one, one)).sum(1)
        of_rows.append(total)
    return torch.stack(of_rows, 1)[:, None]


class LongConv(torch.autograd.Function):
    """A depthwise convolution with a long kernel and its gradient by matrix products.

    PyTorch's own gradient of such a kernel takes over ten times the convolution's time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        height, width = weight.shape[2:]
        padding: Any = height // 2, width // 2
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = conv2d_input(x.shape, weight, grad, padding=padding, groups=len(weight))
        if ctx.needs_input_grad[1]:
            of_weight = _kernel_gradient(x, grad, (height, width))
        return of_input, of_weight
