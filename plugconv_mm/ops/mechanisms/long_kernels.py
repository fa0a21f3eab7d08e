"""Depthwise convolutions with long kernels on a CPU, thin ones and square ones."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.tracing import is_tracing

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


def kernel_gradient(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Gradient of a depthwise kernel (C, 1, kh, kw) from the input and the output's gradient, both (N, C, H, W).

    For each offset u along the short side the products of all columns with all columns are summed over rows and
    samples by a matrix product; those that are v columns apart lie on one diagonal and make the gradient at (u, v).
    """
    kh, kw = kernel_size
    if kh > kw:
        return kernel_gradient(x.mT, grad.mT, (kw, kh)).mT
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
            of_weight = kernel_gradient(x, grad, (height, width))
        return of_input, of_weight


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
    """Depthwise convolution of x with kernels (C, 1, kh, kw) of odd sizes; channels-last in memory on a CPU.

    A CPU convolves contiguous maps with such kernels more than ten times slower.

    Args:
        x: Map (N, C, H, W).
        weight: The kernels.
        bias: (C), or None.
        padding: Half of each side of the kernels, as numbers that no tracer knows.
    """
    if x.device.type == 'cpu':
        x = x.contiguous(memory_format=torch.channels_last)
        if (max(padding) >= LONG // 2 and torch.is_grad_enabled() and not is_tracing()
                and autocast_dtype(x) is None):
            y = LongConv.apply(x, weight)
            return y if bias is None else y + bias[:, None, None]
    return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution is depthwise and keeps the size of a map, so that :func:`depthwise` computes it."""
    return (conv.in_channels == conv.out_channels == conv.groups and conv.padding_mode == 'zeros'
            and conv.stride == conv.dilation == (1, 1) and not any(size % 2 == 0 for size in conv.kernel_size)
            and conv.padding == tuple(size // 2 for size in conv.kernel_size))
