"""The forms by name, the choice among them, and the convolutions of a map with several kernels in a form."""
import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.thin_kernels import banded, fft
from plugconv_mm.ops.mechanisms.thin_kernels.bilinear import Convolution, Form
from plugconv_mm.ops.mechanisms.tracing import is_tracing
from plugconv_mm.ops.mechanisms.tuning import fastest, may_answer

_FORMS: Mapping[str, Form] = {'banded': banded.FORM, 'fft': fft.FORM}
FORMS = ('conv', *_FORMS)


def check_form(form: str) -> None:
    """Check the name of a form.

    Raises:
        ValueError: If there is none of this name.
    """
    if form != 'auto' and form not in FORMS:
        raise ValueError(f"form must be 'auto' or one of {', '.join(map(repr, FORMS))}, got {form!r}")


def convolve_each(x: Tensor, kernels: Sequence[Tensor], form: str,
                  conv: Callable[..., list[Tensor]]) -> list[Tensor]:
    """The depthwise convolutions of a map (N, C, H, W) with each of some kernels (C, 1, kh, kw).

    Args:
        x: The map.
        kernels: The kernels.
        form: ``'auto'`` or one of `FORMS`.
        conv: A function of the map and of each kernel, the form ``'conv'``.
    """
    def call(name: str) -> Callable[..., list[Tensor]]:
        return conv if name == 'conv' else lambda x, *kernels: _in_one_type(_each, name, x, *kernels)

    def summed(name: str) -> Callable[..., Tensor]:
        return lambda *inputs: torch.stack(call(name)(*inputs)).sum(0)

    return call(_choose(form, 'each', summed, x, *kernels))(x, *kernels)


def convolve_sum(x: Tensor, kernels: Sequence[Tensor], bias: Tensor, form: str,
                 conv: Callable[..., Tensor]) -> Tensor:
    """The sum of the depthwise convolutions of a map (N, C, H, W) with some kernels (C, 1, kh, kw), and a bias (C).

    Args:
        x: The map.
        kernels: The kernels.
        bias: The bias.
        form: ``'auto'`` or one of `FORMS`.
        conv: A function of the map, of each kernel and of the bias, the form ``'conv'``.
    """
    def call(name: str) -> Callable[..., Tensor]:
        return conv if name == 'conv' else lambda *inputs: _in_one_type(_sum, name, *inputs)

    return call(_choose(form, 'sum', call, x, *kernels, bias))(x, *kernels, bias)


def _choose(form: str, result: str, candidate: Callable[[str], Callable[..., Tensor]], x: Tensor,
            *parameters: Tensor) -> str:
    """The form of a call. Tracers record convolutions, which every runtime knows."""
    if is_tracing():
        return 'conv'
    if form != 'auto':
        check_form(form)  # the attribute may have been set
        return form
    if not may_answer():
        return 'conv'
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))
    workload = (tuple(x.shape), x.dtype, autocast_dtype(x), x.stride(), tuple(tuple(p.shape) for p in parameters),
                result)
    return fastest('large kernel', workload, {name: candidate(name) for name in ('conv', *_FORMS)}, (x, *parameters),
                   training) or 'conv'


def _in_one_type(function: Callable, form: str, x: Tensor, *parameters: Tensor):
    """Call a function of a form, a map and parameters in the type in which a convolution would compute."""
    dtype = autocast_dtype(x)
    if dtype is None or x.dtype == torch.float64:
        other = next((p.dtype for p in parameters if p.dtype != x.dtype), None)
        if other is not None:
            raise TypeError(f'the input is {x.dtype} and the kernels are {other}: convert one of them, or run under '
                            'torch.autocast')
        dtype = x.dtype
    with contextlib.nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False):
        return function(_FORMS[form], *(t.to(dtype) for t in (x, *parameters)))


def _each(form: Form, x: Tensor, *kernels: Tensor) -> list[Tensor]:
    longest = max(max(kernel.shape[2:]) for kernel in kernels)
    return [Convolution.apply(x, kernel, form) if max(kernel.shape[2:]) == longest else _plain(x, kernel)
            for kernel in kernels]


def _plain(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(x, kernel, padding=(kernel.shape[2] // 2, kernel.shape[3] // 2), groups=len(kernel))


def _sum(form: Form, x: Tensor, *parameters: Tensor) -> Tensor:
    *kernels, bias = parameters
    return sum(_each(form, x, *kernels), bias[:, None, None])
