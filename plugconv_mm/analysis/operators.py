"""Multiply-adds of operators, from their shapes and types.

A multiply-add is one multiplication and one addition of real numbers, that is, two floating-point operations; what
does not come in pairs counts half a multiply-add for each operation. So:

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
interpolation       4 for an output element if bilinear, 16 if bicubic, 0 if nearest
pooling             half for each element that goes into a mean; 0 for a maximum
=================== ================================================================================================

Everything else counts nothing: biases, activations, softmax, and sums and products of real numbers element by element.
The FFT's is the usual measure for lengths that are products of small primes; a length with a large prime factor takes
several times as much.
"""
import math
from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def _convolution(out, x, weight, bias, stride, padding, dilation, transposed, *_):
    # A transposed one spreads each input element, another gathers each output element.
    return 'convolution', (x if transposed else out).numel() * weight[0].numel()


def _deformable_convolution(out, x, weight, offset, *_):
    taps = weight.shape[2] * weight.shape[3]
    sampled = x.shape[0] * x.shape[1] * taps * out.shape[2] * out.shape[3]
    return 'convolution', out.numel() * weight[0].numel() + 4 * sampled


def _product(out, a, b):
    """Of the last two operands of mm, addmm, bmm, baddbmm."""
    kind, each = ('complex product', 4) if a.is_complex() else ('matrix product', 1)
    return kind, out.numel() * a.shape[-1] * each


def _attention(out, query, key, value, *_, **__):
    return 'matrix product', query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _elementwise_product(out, a, b):
    if out.is_complex() and all(isinstance(t, Tensor) and t.is_complex() for t in (a, b)):
        return 'complex product', 3 * out.numel()
    return None


def _fft(out, x, dims, *_):
    """One real transform along the last of ``dims``, or none, and complex ones along the others."""
    real = next((t for t in (x, out) if not t.is_complex()), None)
    total, complex_dims = 0., list(dims)
    if real is not None:
        total += 1.25 * real.numel() * math.log2(real.shape[complex_dims.pop()])
    spectrum = x if x.is_complex() else out
    return 'FFT', round(total + sum(2.5 * spectrum.numel() * math.log2(spectrum.shape[dim]) for dim in complex_dims))


def _mean(out, x, *_, **__):
    return 'pooling', x.numel() // 2


_RULES = {
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
    aten.upsample_bicubic2d: lambda out, *_: ('interpolation', 16 * out.numel()),
    aten.mean: _mean,
    aten._adaptive_avg_pool2d: _mean,
    aten.avg_pool2d: lambda out, x, kernel, *_: ('pooling', out.numel() * math.prod(kernel) // 2),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


class OperatorCounter(TorchDispatchMode):
    """Counts the multiply-adds of what runs inside, see :mod:`plugconv_mm.analysis.operators`.

    Comparisons of whole tensors come out as equal, so that layers on fake tensors reuse what they have derived from
    their weights.

    Attributes:
        macs (Counter): multiply-adds by kind of operator.

    Example:
        >>> import torch
        >>> with OperatorCounter() as counter:
        ...     y = torch.nn.functional.conv2d(torch.rand(1, 3, 10, 10), torch.rand(8, 3, 3, 3))
        >>> dict(counter.macs)
        {'convolution': 13824}
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
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
