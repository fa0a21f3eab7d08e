"""The global-local filter: a 3x3 convolution beside a learned filter in the frequency domain.

- Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
  https://arxiv.org/abs/2207.14284
- Rao et al., "Global Filter Networks for Image Classification", https://arxiv.org/abs/2107.00645
"""
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.check_map import check_map
from plugconv_mm.ops.mechanisms.dft import dft_matrix, irdft_matrix, kept, rdft_matrix
from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.tracing import is_exporting, side
from plugconv_mm.ops.mechanisms.tuning import fastest


def _resize(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A complex weight (C, h, w, 2) at another size (h, w)."""
    if weight.shape[1:3] == size:
        return weight
    return F.interpolate(weight.permute(3, 0, 1, 2), size=size, mode='bilinear', align_corners=True).permute(1, 2, 3, 0)


def _spectrum_weight(weight: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """A complex weight (C, h, w, 2) as a complex tensor (C, rows, columns)."""
    return torch.view_as_complex(_resize(weight.to(dtype), (rows, columns)).contiguous())


def _by_fft(x: Tensor, weight: Tensor) -> Tensor:
    """The global filter of x (N, C, H, W) by a complex weight (C, H, W // 2 + 1)."""
    spectrum = torch.fft.rfft2(x, norm='ortho')
    spectrum = spectrum * weight if torch.is_grad_enabled() else spectrum.mul_(weight)
    return torch.fft.irfft2(spectrum, s=x.shape[2:], norm='ortho')


def _by_matrices(x: Tensor, weight: Tensor) -> Tensor:
    """The same as products with DFT matrices that are kept."""
    height, width = x.shape[2:]
    return _products(x, torch.view_as_real(weight), kept(dft_matrix, height, x), kept(rdft_matrix, width, x),
                     kept(irdft_matrix, width, x))


# The first is the reference form, and the one that is taken where nothing was measured.
_FORMS = {'fft': _by_fft, 'matrices': _by_matrices}


def _products(x: Tensor, weight: Tensor, columns: Tensor, rows: Tensor, back: Tensor) -> Tensor:
    """The global filter by a weight (C, H, W // 2 + 1, 2) and DFT matrices, of real and imaginary parts."""
    spectrum = columns @ torch.cat((x @ rows).chunk(2, dim=3), dim=2)
    (real, imag), (w_real, w_imag) = spectrum.chunk(2, dim=2), weight.unbind(3)
    spectrum = torch.cat((real * w_real - imag * w_imag, real * w_imag + imag * w_real), dim=2)
    return torch.cat((columns.t() @ spectrum).chunk(2, dim=2), dim=3) @ back


# torch.compile sees the filter as an operator with real numbers in and out: its own code for complex numbers depends on
# strides that it guesses wrongly, and its code for the stretched weight does not always compile.


@torch.library.custom_op('plugconv_mm::global_filter', mutates_args=())
def _filter_operator(x: Tensor, weight: Tensor) -> Tensor:
    """The global filter of x (N, C, H, W) by a complex weight (C, h, w, 2) of the same type; contiguous."""
    height, width = x.shape[2:]
    spectrum = torch.fft.rfft2(x, norm='ortho')
    spectrum *= _spectrum_weight(weight, height, width // 2 + 1, x.dtype)
    return torch.fft.irfft2(spectrum, s=(height, width), norm='ortho').contiguous()


@_filter_operator.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op('plugconv_mm::global_filter_backward', mutates_args=())
def _filter_backward_operator(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the map and of the weight."""
    height, width = x.shape[2:]
    columns = width // 2 + 1
    grad = torch.fft.rfft2(grad.contiguous(), norm='ortho')  # MKL of torch 2.6 takes none that a sum stretched
    grad_weight = torch.view_as_real((torch.fft.rfft2(x, norm='ortho').conj() * grad).sum(0))
    # Each column but the first, and the last of an even width, stands for two.
    grad_weight[:, :, 1:(width + 1) // 2] *= 2
    if weight.shape[1:3] != (height, columns):
        grad_weight = torch.ops.aten.upsample_bilinear2d_backward(
            grad_weight.permute(3, 0, 1, 2).contiguous(), [height, columns], [2, *weight.shape[:3]], True)
        grad_weight = grad_weight.permute(1, 2, 3, 0)
    grad *= _spectrum_weight(weight, height, columns, x.dtype).conj()
    return torch.fft.irfft2(grad, s=(height, width), norm='ortho').contiguous(), grad_weight.contiguous()


@_filter_backward_operator.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _filter_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _filter_backward_operator(grad, *ctx.saved_tensors)


_filter_operator.register_autograd(_filter_gradient, setup_context=_keep_inputs)


class GlobalLocalFilter(nn.Module):
    """Half of the channels through a 3x3 convolution, the other half through a learned filter as large as the map.

    LayerNorm over channels; the first half goes through a 3x3 depthwise convolution, the second is multiplied in the
    frequency domain by ``complex_weight`` (a circular convolution with a kernel of the map's own size); the halves are
    interleaved channel by channel (local 0, global 0, local 1, ...), and normalised again. The complex weight is
    stretched (bilinear, corners aligned) to the half spectrum (H, W // 2 + 1) of any map, and so is the weight of a
    checkpoint to the size of this module's.

    The transforms are computed in float32 whatever the autocast, and in float64 for float64 input. In evaluation mode
    without gradients the stretched weight is kept for the last two map sizes, until the weight changes.

    Paper: https://arxiv.org/abs/2207.14284, section 3.3. Cost per channel: O(HW log HW), against 49 HW of a 7x7.

    Args:
        dim: Channels C, an even number.
        h: Rows of the complex weight; 14 and 7 in stages 3 and 4 of HorNet at 224 pixels, 32 in HorFPN.
        w: Columns of the complex weight, the half spectrum; 8 and 4 in HorNet, 17 in HorFPN.

    Shape:
        (N, C, H, W) -> (N, C, H, W), any H and W.

    Raises:
        ValueError: If ``dim`` is odd, or ``h`` or ``w`` is below 1; in forward, for integer or complex input and for
            another number of channels or dimensions.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import GlobalLocalFilter
        >>> GlobalLocalFilter(32, h=14, w=8)(torch.rand(1, 32, 25, 42)).shape
        torch.Size([1, 32, 25, 42])
    """

    def __init__(self, dim: int, h: int = 14, w: int = 8) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f'GlobalLocalFilter halves its channels and cannot halve dim={dim}: pass an even number')
        if h < 1 or w < 1:
            raise ValueError(f'the complex weight needs at least one row and one column, got h={h}, w={w}')
        self.dim = dim
        self.dw = nn.Conv2d(dim // 2, dim // 2, 3, padding=1, bias=False, groups=dim // 2)
        self.complex_weight = nn.Parameter(torch.randn(dim // 2, h, w, 2) * 0.02)
        self.pre_norm = nn.LayerNorm(dim, eps=1e-6)
        self.post_norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.dw.weight, std=0.02)
        self._cache = KernelCache(max_entries=2)  # as large as half a map each: landscape and portrait

    def train(self, mode: bool = True) -> 'GlobalLocalFilter':
        """Set training or evaluation mode; weights may have been swapped since the last call, so kept kernels go."""
        self._cache.forget()
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # A network for larger images starts from the weights of one for smaller ones.
        key = f'{prefix}complex_weight'
        weight = state_dict.get(key)
        if weight is not None and weight.dim() == 4 and weight.shape[::3] == self.complex_weight.shape[::3]:
            rows, columns = self.complex_weight.shape[1:3]
            state_dict[key] = _resize(weight, (rows, columns))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _stretch(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """The complex weight as a (C/2, rows, columns) complex tensor."""
        return _spectrum_weight(self.complex_weight, rows, columns, dtype)

    def _filter(self, x: Tensor) -> Tensor:
        """The global filter of x (N, C/2, H, W)."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        if not x.shape[0]:
            return x * self.complex_weight.sum().to(dtype)  # FFTs take no empty batches; the gradients are zeros
        if torch.compiler.is_compiling():
            return _filter_operator(x.to(dtype), self.complex_weight.to(dtype))
        x, size = x.to(dtype), (x.shape[2], x.shape[3] // 2 + 1, dtype)
        if self._cache.serves(self):
            weight = self._cache.get((self.complex_weight, ), size, lambda: self._stretch(*size))
        else:
            weight = self._stretch(*size)
        measured = fastest('global filter', (tuple(x.shape), dtype, x.stride()), _FORMS, (x, weight),
                           torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        return _FORMS[measured or 'fft'](x, weight)

    def _filter_for_export(self, x: Tensor) -> Tensor:
        """The global filter as products with DFT matrices that are part of the graph."""
        height, width = side(x, 2), side(x, 3)
        return _products(x, _resize(self.complex_weight, (height, width // 2 + 1)), dft_matrix(height, x),
                         rdft_matrix(width, x), irdft_matrix(width, x))

    def forward(self, x: Tensor, scale: float = 1.) -> Tensor:
        """Filter x; the result is multiplied by `scale`, at no cost."""
        check_map(x, self.dim, 'GlobalLocalFilter')
        x = self.pre_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        local, wide = x.chunk(2, dim=1)
        local = self.dw(local)
        with nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False):
            wide = self._filter_for_export(wide) if is_exporting() else self._filter(wide)
        x = torch.stack((local.permute(0, 2, 3, 1), wide.to(local.dtype).permute(0, 2, 3, 1)), dim=-1)
        x, norm = x.flatten(3), self.post_norm
        if is_plain(norm, nn.LayerNorm):
            x = F.layer_norm(x, norm.normalized_shape, norm.weight * scale, norm.bias * scale, norm.eps)
        else:
            x = norm(x) * scale
        return x.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f'{self.dim}, h={self.complex_weight.shape[1]}, w={self.complex_weight.shape[2]}'
