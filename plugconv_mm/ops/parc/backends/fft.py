"""Fast-ParC: ParC by fast Fourier transforms."""
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plugconv_mm.ops.parc.backends.base import Backend, Geometry

_CHUNK_BYTES = 4 * 2**20


class FFT(Backend):
    """A product in the frequency domain: O(N log N) a line, in float32 or float64 whatever the input.

    torch.compile sees the transforms as operators ``plugconv_mm::fast_parc`` and ``plugconv_mm::parc_spectrum``, with
    real numbers in and out: its own code for complex numbers depends on strides that it guesses wrongly.
    """

    def compute_dtype(self, dtype: torch.dtype) -> torch.dtype:
        # There is no bfloat16 FFT, and float16 only for powers of two on CUDA: both go through float32.
        return torch.float64 if dtype == torch.float64 else torch.float32

    def prepare(self, stretched: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
        """The conjugate spectrum: (C, 1, N // 2 + 1) if depthwise, else ((N // 2 + 1) · groups, width, width)."""
        if torch.compiler.is_compiling():
            return _spectrum_operator(stretched.to(dtype))
        return _Spectrum.apply(stretched.to(dtype))

    def apply(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        # The transform wants its axis last and contiguous, and copies where it is not.
        lines = x.mT if geometry.axis == 2 else x
        trained = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
        if torch.compiler.is_compiling():
            lines, _ = _fast_parc_operator(lines, kernel, geometry.groups, trained and kernel.requires_grad)
        elif trained:
            lines = _FastParC.apply(lines, kernel, geometry.groups)
        else:
            lines, _ = _fast_parc(lines, kernel, geometry.groups, keep=False)
        return lines.mT if geometry.axis == 2 else lines

    def channels_at_once(self, x: Tensor, geometry: Geometry) -> int:
        # Few at a time: spectra of a big map stay in the processor's cache, and the operating system is not asked for
        # fresh pages for each of them.
        channels, size = x.shape[1], x.numel() * x.element_size()
        if geometry.group_width > 1 or x.device.type != 'cpu' or size <= 3 * _CHUNK_BYTES:
            return channels
        return max(1, _CHUNK_BYTES * channels // size)


def _spectrum(stretched: Tensor) -> Tensor:
    """The conjugate spectrum of kernels (C, width, N): (C, 1, F) if width is 1, else (F · groups, width, width)."""
    spectrum = torch.fft.rfft(stretched).conj()
    width = stretched.shape[1]
    if width == 1:
        return spectrum.resolve_conj()
    return spectrum.permute(2, 0, 1).reshape(-1, width, width).resolve_conj()


def _spectrum_backward(grad: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The gradient of kernels of this shape from that of their conjugate spectrum."""
    channels, width, length = shape
    if width > 1:
        grad = grad.view(-1, channels, width).permute(1, 2, 0)
    # The inverse transform counts each frequency twice, but the first, and the last of an even length.
    grad = grad.conj() * 0.5
    grad[..., 0] *= 2
    if length % 2 == 0:
        grad[..., -1] *= 2
    return torch.fft.irfft(grad, n=length, norm='forward')


def _fast_parc(lines: Tensor, kernel: Tensor, groups: int, keep: bool) -> tuple[Tensor, Tensor | None]:
    """``irfft(kernel · rfft(lines))`` of lines (B, C, L, N), and with `keep` the spectrum, (B, C, L, F)."""
    spectrum = torch.fft.rfft(lines)
    mixed = _mix(spectrum, kernel, groups, in_place=not keep)
    return torch.fft.irfft(mixed, n=lines.shape[3]), spectrum if keep else None


def _fast_parc_backward(grad: Tensor, kernel: Tensor, spectrum: Tensor | None, groups: int,
                        of_lines: bool) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the lines, if asked for, and of the kernel, if the spectrum was kept.

    They stay in the half spectrum; autograd's own backward of rfft and irfft goes through full-length complex ones.
    """
    length, depthwise = grad.shape[3], kernel.shape[1] == 1
    grad = torch.fft.rfft(grad)
    grad_lines = grad_kernel = None
    if spectrum is not None:
        # Each frequency but the first, and the last of an even length, stands for two.
        scale = grad.new_full(grad.shape[-1:], 2 / length, dtype=grad.real.dtype)
        scale[0] = 1 / length
        if length % 2 == 0:
            scale[-1] = 1 / length
        if depthwise:
            grad_kernel = torch.linalg.vecdot(spectrum, grad, dim=2).sum(0).unsqueeze(1) * scale
        else:
            grad_kernel = torch.bmm(_by_frequency(grad, groups), _by_frequency(spectrum, groups).mH)
            grad_kernel *= scale.repeat_interleave(groups).view(-1, 1, 1)
    if of_lines:
        adjoint = kernel.conj() if depthwise else kernel.mH
        grad_lines = torch.fft.irfft(_mix(grad, adjoint, groups, in_place=True), n=length)
    return grad_lines, grad_kernel


def _mix(spectrum: Tensor, kernel: Tensor, groups: int, in_place: bool) -> Tensor:
    """The product of each frequency of (B, C, L, F) with the kernel's; see :func:`_spectrum` for its shapes."""
    if kernel.shape[1] == 1:
        return spectrum.mul_(kernel) if in_place else spectrum * kernel
    batch, channels, lines, frequencies = spectrum.shape
    mixed = torch.bmm(kernel, _by_frequency(spectrum, groups))
    mixed = mixed.view(frequencies, groups, channels // groups, batch, lines)
    return mixed.permute(3, 1, 2, 4, 0).flatten(1, 2)


def _by_frequency(spectrum: Tensor, groups: int) -> Tensor:
    """(B, C, L, F) as a batch of matrices (F · groups, C / groups, B · L)."""
    batch, channels, lines, frequencies = spectrum.shape
    t = spectrum.unflatten(1, (groups, channels // groups)).permute(4, 1, 2, 0, 3)
    return t.reshape(frequencies * groups, channels // groups, batch * lines)


class _Spectrum(torch.autograd.Function):
    """The conjugate spectrum; autograd's own gradient keeps the kernels and goes through full-length spectra."""

    @staticmethod
    def forward(ctx: Any, stretched: Tensor) -> Tensor:
        ctx.shape = tuple(stretched.shape)
        return _spectrum(stretched)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _spectrum_backward(grad, ctx.shape)


class _FastParC(torch.autograd.Function):
    """The product with its gradients, for autograd."""

    @staticmethod
    def forward(ctx: Any, lines: Tensor, kernel: Tensor, groups: int) -> Tensor:
        y, spectrum = _fast_parc(lines, kernel, groups, keep=ctx.needs_input_grad[1])
        ctx.groups = groups
        ctx.save_for_backward(kernel, spectrum)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        kernel, spectrum = ctx.saved_tensors
        return *_fast_parc_backward(grad, kernel, spectrum, ctx.groups, ctx.needs_input_grad[0]), None


# The operators that torch.compile sees. Maps go in as they are, and all that comes out is contiguous; spectra are real,
# with a last axis for real and imaginary parts.


@torch.library.custom_op('plugconv_mm::parc_spectrum', mutates_args=())
def _spectrum_operator(stretched: Tensor) -> Tensor:
    return torch.view_as_real(_spectrum(stretched).contiguous())


@_spectrum_operator.register_fake
def _(stretched: Tensor) -> Tensor:
    channels, width, length = stretched.shape
    frequencies = length // 2 + 1
    if width == 1:
        return stretched.new_empty(channels, 1, frequencies, 2)
    return stretched.new_empty(frequencies * (channels // width), width, width, 2)


@torch.library.custom_op('plugconv_mm::parc_spectrum_backward', mutates_args=())
def _spectrum_backward_operator(grad: Tensor, channels: int, width: int, length: int) -> Tensor:
    return _spectrum_backward(torch.view_as_complex(grad.contiguous()), (channels, width, length)).contiguous()


@_spectrum_backward_operator.register_fake
def _(grad: Tensor, channels: int, width: int, length: int) -> Tensor:
    return grad.new_empty(channels, width, length)


def _keep_shape(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.shape = tuple(inputs[0].shape)


def _spectrum_gradient(ctx: Any, grad: Tensor) -> Tensor:
    return _spectrum_backward_operator(grad, *ctx.shape)


_spectrum_operator.register_autograd(_spectrum_gradient, setup_context=_keep_shape)


@torch.library.custom_op('plugconv_mm::fast_parc', mutates_args=())
def _fast_parc_operator(lines: Tensor, kernel: Tensor, groups: int, keep: bool) -> tuple[Tensor, Tensor]:
    y, spectrum = _fast_parc(lines.contiguous(), torch.view_as_complex(kernel.contiguous()), groups, keep)
    kept = lines.new_empty(0) if spectrum is None else torch.view_as_real(spectrum.contiguous())
    return y.contiguous(), kept


@_fast_parc_operator.register_fake
def _(lines: Tensor, kernel: Tensor, groups: int, keep: bool) -> tuple[Tensor, Tensor]:
    kept = (*lines.shape[:3], lines.shape[3] // 2 + 1, 2) if keep else (0, )
    return lines.new_empty(lines.shape), lines.new_empty(kept)


@torch.library.custom_op('plugconv_mm::fast_parc_backward', mutates_args=())
def _fast_parc_backward_operator(grad: Tensor, kernel: Tensor, kept: Tensor, groups: int,
                                 of_lines: bool) -> tuple[Tensor, Tensor]:
    kernel, spectrum = torch.view_as_complex(kernel.contiguous()), None
    if kept.numel():
        spectrum = torch.view_as_complex(kept.contiguous())
    grad_lines, grad_kernel = _fast_parc_backward(grad.contiguous(), kernel, spectrum, groups, of_lines)
    return (grad.new_empty(0) if grad_lines is None else grad_lines.contiguous(),
            grad.new_empty(0) if grad_kernel is None else torch.view_as_real(grad_kernel.contiguous()))


@_fast_parc_backward_operator.register_fake
def _(grad: Tensor, kernel: Tensor, kept: Tensor, groups: int, of_lines: bool) -> tuple[Tensor, Tensor]:
    return (grad.new_empty(grad.shape if of_lines else (0, )),
            grad.new_empty(kernel.shape if kept.numel() else (0, )))


def _keep_kernel(ctx: Any, inputs: tuple[Tensor, Tensor, int, bool], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    _, kernel, ctx.groups, _ = inputs
    ctx.save_for_backward(kernel, output[1])


def _fast_parc_gradient(ctx: Any, grad: Tensor, unused: None) -> tuple[Tensor | None, Tensor | None, None, None]:
    of_lines, of_kernel = ctx.needs_input_grad[:2]
    grad_lines, grad_kernel = _fast_parc_backward_operator(grad, *ctx.saved_tensors, ctx.groups, of_lines)
    return grad_lines if of_lines else None, grad_kernel if of_kernel else None, None, None


_fast_parc_operator.register_autograd(_fast_parc_gradient, setup_context=_keep_kernel)
