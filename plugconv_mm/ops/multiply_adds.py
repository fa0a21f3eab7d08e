"""Multiply-adds of operators, from their shapes and types.

A multiply-add is one multiplication and one addition of real numbers, that is, two floating-point operations; a single
operation counts half a multiply-add:

=================== ================================================================================================
kind                multiply-adds
=================== ================================================================================================
convolution         output elements · (input channels / groups) · kernel elements; a deformable one 4 more for each
                    element that it samples
matrix product      rows · columns · inner width; also the two products of attention
complex product     3 for an element-wise product of complex numbers (6 operations); 4 for each multiply-add of a
                    complex matrix product (8 operations)
FFT                 2.5 · N · log2(N) for a complex transform of N points (N / 2 · log2(N) butterflies of one complex
                    product and two complex sums, 10 operations each), half of that for a real one; along two axes:
                    real transforms along the last, then complex ones of what is left of the spectrum
norm                1 for an element with running statistics (scale and shift), 4 with its own (sum, sum of squares,
                    normalise, scale and shift)
interpolation       4 for an output element if bilinear, as in deformable attention, 16 if bicubic, 0 if nearest
pooling             half for each element that goes into a mean; 0 for a maximum
=================== ================================================================================================

Everything else counts nothing: biases, activations, softmax, and sums and products of real numbers element by element.
The FFT's is the usual measure for lengths that are products of small primes; a length with a large prime factor takes
several times as much.
"""
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
Counted = tuple[str, int]  # kind and multiply-adds


def _convolution(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
                 padding: Sequence[int], dilation: Sequence[int], transposed: bool, *_: Any) -> Counted:
    # A transposed convolution multiplies each input element with a kernel; others compute each output element from one.
    return 'convolution', (x if transposed else out).numel() * weight[0].numel()


def _deformable_convolution(out: Tensor, x: Tensor, weight: Tensor, offset: Tensor, *_: Any) -> Counted:
    taps = weight.shape[2] * weight.shape[3]
    sampled = x.shape[0] * x.shape[1] * taps * out.shape[2] * out.shape[3]
    return 'convolution', out.numel() * weight[0].numel() + 4 * sampled


def _product(out: Tensor, a: Tensor, b: Tensor) -> Counted:
    """Count the matrix product of the last two operands of mm, addmm, bmm, baddbmm."""
    kind, each = ('complex product', 4) if a.is_complex() else ('matrix product', 1)
    return kind, out.numel() * a.shape[-1] * each


def _attention(out: tuple, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Counted:
    return 'matrix product', query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _elementwise_product(out: Tensor, a: Tensor, b: Tensor) -> Counted | None:
    if out.is_complex() and all(isinstance(t, Tensor) and t.is_complex() for t in (a, b)):
        return 'complex product', 3 * out.numel()
    return None


def _fft(out: Tensor, x: Tensor, dims: Sequence[int], *_: Any) -> Counted:
    """Count a real transform along the last of ``dims``, if there is one, and complex ones along the others."""
    real = next((t for t in (x, out) if not t.is_complex()), None)
    total, complex_dims = 0., list(dims)
    if real is not None:
        total += 1.25 * real.numel() * math.log2(real.shape[complex_dims.pop()])
    spectrum = x if x.is_complex() else out
    return 'FFT', round(total + sum(2.5 * spectrum.numel() * math.log2(spectrum.shape[dim]) for dim in complex_dims))


def _mean(out: Tensor, x: Tensor, *_: Any, **__: Any) -> Counted:
    return 'pooling', x.numel() // 2


_RULES: dict[Any, Callable[..., Counted | None]] = {
    aten.convolution: _convolution,
    aten.mm: _product,
    aten.bmm: _product,
    aten.addmm: lambda out, bias, a, b, **_: _product(out, a, b),
    aten.baddbmm: lambda out, bias, a, b, **_: _product(out, a, b),
    aten.mul: _elementwise_product,
    aten.mul_: _elementwise_product,
    aten._fft_r2c: _fft,
    aten._fft_c2r: _fft,
    aten._fft_c2c: _fft,
    aten.native_batch_norm: lambda out, *_: ('norm', out[0].numel()),
    aten.native_layer_norm: lambda out, *_: ('norm', 4 * out[0].numel()),
    aten.native_group_norm: lambda out, *_: ('norm', 4 * out[0].numel()),
    aten.upsample_bilinear2d: lambda out, *_: ('interpolation', 4 * out.numel()),
    aten.grid_sampler_2d: lambda out, x, grid, mode, *_: ('interpolation', (4, 0, 16)[mode] * out.numel()),
    aten.upsample_bicubic2d: lambda out, *_: ('interpolation', 16 * out.numel()),
    aten.mean: _mean,
    aten._adaptive_avg_pool2d: _mean,
    aten.avg_pool2d: lambda out, x, kernel, *_: ('pooling', out.numel() * math.prod(kernel) // 2),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


class OperatorCounter(TorchDispatchMode):
    """A context that counts the multiply-adds of the operators in it, see :mod:`plugconv_mm.ops.multiply_adds`.

    Comparisons of whole tensors give True, so that layers on fake tensors reuse the tensors that they have derived from
    their weights.

    Attributes:
        macs: Multiply-adds by kind of operator.

    Example:
        >>> import torch
        >>> with OperatorCounter() as counter:
        ...     y = torch.nn.functional.conv2d(torch.rand(1, 3, 10, 10), torch.rand(8, 3, 3, 3))
        >>> dict(counter.macs)
        {'convolution': 13824}
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.equal.default:
            return True
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in _RULES:
            counted = _RULES[packet](out, *args, **kwargs)
        elif str(packet) == 'torchvision.deform_conv2d':
            counted = _deformable_convolution(out, *args)
        elif packet in flop_registry:  # fused attention and the like
            counted = 'matrix product', flop_registry[packet](*args, **kwargs, out_val=out) // 2
        else:
            counted = None
        if counted:
            self.macs[counted[0]] += counted[1]
        return out
