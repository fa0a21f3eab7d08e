"""gnConv: recursive gated convolution, with its two filters.

Paper: Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
https://arxiv.org/abs/2207.14284. The global-local filter goes back to "Global Filter Networks for Image
Classification", https://arxiv.org/abs/2107.00645.
"""
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.dft import dft_matrix, irdft_matrix, rdft_matrix
from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.same_padding import Size, check_same_padding
from plugconv_mm.ops.mechanisms.token_chunks import token_chunks, token_chunks_pay
from plugconv_mm.ops.mechanisms.tracing import is_exporting

FILTERS = ('7x7', 'gf')


def _check_map(x: Tensor, channels: int, name: str) -> None:
    if x.dim() != 4:
        raise ValueError(f'{name} takes a (N, C, H, W) tensor, got shape {tuple(x.shape)}')
    if not x.is_floating_point():
        raise ValueError(f'{name} takes a real floating-point tensor, got {x.dtype}: convert it, e.g. with x.float()')
    if x.shape[1] != channels:
        raise ValueError(f'{name} was built for {channels} channels, got {x.shape[1]} in shape {tuple(x.shape)}')
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f'{name} needs a map of at least 1x1, got shape {tuple(x.shape)}')


def _pointwise(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of tokens (L, C)."""
    return F.linear(tokens, weight.flatten(1), bias)


def _resize(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A complex weight (C, h, w, 2) at another size (h, w)."""
    if weight.shape[1:3] == tuple(size):
        return weight
    return F.interpolate(weight.permute(3, 0, 1, 2), size=tuple(size), mode='bilinear',
                         align_corners=True).permute(1, 2, 3, 0)


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

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        # A network for larger images starts from the weights of one for smaller ones.
        key = f'{prefix}complex_weight'
        weight = state_dict.get(key)
        if weight is not None and weight.dim() == 4 and weight.shape[::3] == self.complex_weight.shape[::3]:
            state_dict[key] = _resize(weight, self.complex_weight.shape[1:3])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _stretch(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """The complex weight as a (C/2, rows, columns) complex tensor."""
        return torch.view_as_complex(_resize(self.complex_weight.to(dtype), (rows, columns)).contiguous())

    def _filter(self, x: Tensor) -> Tensor:
        """The global filter, of x (N, C/2, H, W)."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        if len(x) == 0:  # which FFTs refuse
            return self._filter_by_matrices(x.to(dtype))
        spectrum = torch.fft.rfft2(x.to(dtype), norm='ortho')
        size = x.shape[2], x.shape[3] // 2 + 1, dtype
        if KernelCache.serves(self):
            weight = self._cache.get((self.complex_weight, ), size, lambda: self._stretch(*size))
        else:
            weight = self._stretch(*size)
        spectrum = spectrum * weight if torch.is_grad_enabled() else spectrum.mul_(weight)
        return torch.fft.irfft2(spectrum, s=x.shape[2:], norm='ortho')

    def _filter_by_matrices(self, x: Tensor) -> Tensor:
        """The same as products with DFT matrices, of real and imaginary parts."""
        height, width = map(int, x.shape[2:])
        weight = _resize(self.complex_weight, (height, width // 2 + 1))
        columns = dft_matrix(height, x)
        spectrum = columns @ torch.cat((x @ rdft_matrix(width, x)).chunk(2, dim=3), dim=2)
        (real, imag), (w_real, w_imag) = spectrum.chunk(2, dim=2), weight.unbind(3)
        spectrum = torch.cat((real * w_real - imag * w_imag, real * w_imag + imag * w_real), dim=2)
        return torch.cat((columns.t() @ spectrum).chunk(2, dim=2), dim=3) @ irdft_matrix(width, x)

    def forward(self, x: Tensor, scale: float = 1.) -> Tensor:
        """Filter x; the result is multiplied by `scale`, at no cost."""
        _check_map(x, self.dim, 'GlobalLocalFilter')
        x = self.pre_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        local, wide = x.chunk(2, dim=1)
        local = self.dw(local)
        with nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False):
            wide = self._filter_by_matrices(wide) if is_exporting() else self._filter(wide)
        x = torch.stack((local.permute(0, 2, 3, 1), wide.to(local.dtype).permute(0, 2, 3, 1)), dim=-1)
        x, norm = x.flatten(3), self.post_norm
        if is_plain(norm, nn.LayerNorm):
            x = F.layer_norm(x, norm.normalized_shape, norm.weight * scale, norm.bias * scale, norm.eps)
        else:
            x = norm(x) * scale
        return x.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f'{self.dim}, h={self.complex_weight.shape[1]}, w={self.complex_weight.shape[2]}'


class GnConv2d(nn.Module):
    """Recursive gated convolution of order n: a convolution whose output holds n-th order products of its input.

    With widths d_i = C / 2^(n-1-i), a 1x1 convolution gives p (d_0 channels) and q (the sum of all d_i channels);
    q goes through one large filter; then g = p * q_0 and, for i = 1..n-1, g = W_i(g) * q_i with W_i a 1x1
    convolution; a last 1x1 convolution gives the output.

    It keeps the size of the map, so it stands in for any convolution of stride 1 that does. The arguments from
    ``kernel_size`` to ``groups`` are those of ``nn.Conv2d``; they are there so that builders of convolutions
    (``conv_cfg`` of mmcv's ConvModule) can make one, and are checked, but the filter alone sets the extent.

    Paper: https://arxiv.org/abs/2207.14284. Cost per position: C_in 2C + about 2/3 C^2 + C^2 multiplications in the
    1x1 convolutions (C^2 / 2 instead of 2/3 C^2 for n = 2), and 49 (2C - d_0) in the 7x7 filter.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of the output and of the recursion, by default those of the input. 2^(order-1)
            must divide them, 2^order with 'gf'.
        kernel_size: Taken and not used: the filter is 7x7 or global.
        stride: Nothing but 1.
        padding: The padding that keeps the map's size at ``kernel_size``; None and 'same' stand for it.
        dilation: Only used to check ``padding``.
        groups: Nothing but 1.
        bias: Whether the output projection has a bias.
        order: n, 2 or more in practice; 2, 3, 4, 5 in the stages of HorNet.
        filter: '7x7', a depthwise convolution, or 'gf', the :class:`GlobalLocalFilter`.
        filter_size: (h, w) of the complex weight of 'gf'.
        scale: s, multiplies the filter's output: 1/3 in HorNet, 1 in HorFPN.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W), any H and W.

    Raises:
        ValueError: For widths that 2^(order-1) does not divide, an unknown filter, arguments with which a convolution
            would change the map's size; in forward, for integer or complex input and for another number of channels
            or dimensions.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import GnConv2d
        >>> GnConv2d(64, order=3, scale=1 / 3)(torch.rand(2, 64, 25, 42)).shape
        torch.Size([2, 64, 25, 42])
        >>> GnConv2d(48, 32, filter='gf', filter_size=(14, 8))(torch.rand(2, 48, 13, 7)).shape
        torch.Size([2, 32, 13, 7])
    """
    transposed = False
    output_padding = (0, 0)
    conv_layer: type[nn.Conv2d] = nn.Conv2d  # of all but the filter of 'gf'

    def __init__(self, in_channels: int, out_channels: int | None = None, kernel_size: Size = 7, stride: Size = 1,
                 padding: Size | str | None = None, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 order: int = 2, filter: str = '7x7', filter_size: tuple[int, int] = (14, 8),
                 scale: float = 1.0) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        if order < 1:
            raise ValueError(f'the order of a gnConv is 1 or more, got {order}')
        if out_channels < 1 or out_channels % 2**(order - 1):
            raise ValueError(
                f'a gnConv of order {order} halves its width {order - 1} times and cannot do so with {out_channels} '
                f'channels: pass a multiple of {2**(order - 1)}, or a lower order')
        if filter not in FILTERS:
            raise ValueError(f'unknown filter {filter!r}: choose one of {", ".join(map(repr, FILTERS))}')
        if filter == 'gf' and out_channels // 2**(order - 1) % 2:
            raise ValueError(f"filter='gf' halves the {2 * out_channels - out_channels // 2**(order - 1)} channels "
                             f'that a gnConv of order {order} with {out_channels} channels filters, and cannot: pass '
                             f"a multiple of {2**order} channels, a lower order, or filter='7x7'")
        kernel, padding = check_same_padding('GnConv2d', kernel_size, stride, padding, dilation)
        if groups != 1:
            raise ValueError(f'GnConv2d mixes all channels: it replaces convolutions with groups 1 only, got {groups}')
        self.in_channels, self.out_channels, self.order, self.scale = in_channels, out_channels, order, scale
        self.kernel_size, self.padding, self.dilation = kernel, padding, _pair(dilation)
        self.stride, self.groups = (1, 1), 1
        self.widths = [out_channels // 2**i for i in reversed(range(order))]
        inner = sum(self.widths)
        self.proj_in = self.conv_layer(in_channels, 2 * out_channels, 1)
        if filter == '7x7':
            self.dwconv = self.conv_layer(inner, inner, 7, padding=3, groups=inner)
        else:
            self.dwconv = GlobalLocalFilter(inner, *filter_size)
        self.pws = nn.ModuleList(
            self.conv_layer(small, large, 1) for small, large in zip(self.widths[:-1], self.widths[1:], strict=True))
        self.proj_out = self.conv_layer(out_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, in_channels, H, W)."""
        _check_map(x, self.in_channels, 'GnConv2d')
        narrow, proj_in, following = self.widths[0], self.proj_in, [*self.pws, self.proj_out]
        if (not is_plain(proj_in, nn.Conv2d) or proj_in.bias is None
                or not all([is_plain(conv, nn.Conv2d) for conv in following])):
            p, q = proj_in(x).tensor_split((narrow, ), dim=1)
            first, *gates = self._filter(q).split(self.widths, dim=1)
            g = p * first
            for conv, gate in zip(following[:-1], gates, strict=True):
                g = conv(g) * gate
            return following[-1](g)
        # p and q come from two convolutions: of a slice of one output the filter would need a copy.
        weight, bias = proj_in.weight, proj_in.bias
        q = self._filter(F.conv2d(x, weight[narrow:], bias[narrow:]))
        layers = [(weight[:narrow], bias[:narrow]), *[(conv.weight, conv.bias) for conv in following]]
        if not token_chunks_pay(x):
            return self._recurse(x, q, layers, F.conv2d)
        y = torch.empty((len(x), self.out_channels, *x.shape[2:]), dtype=q.dtype, memory_format=torch.channels_last)
        for x_part, q_part, y_part in token_chunks(x, q, y):
            y_part.copy_(self._recurse(x_part, q_part, layers, _pointwise))
        return y

    def _filter(self, q: Tensor) -> Tensor:
        """Apply the large filter and the scale."""
        conv = self.dwconv
        if is_plain(conv, GlobalLocalFilter):
            return conv(q, self.scale)
        if is_plain(conv, nn.Conv2d):
            # The scale goes into the kernel, which is smaller than the map.
            bias = None if conv.bias is None else conv.bias * self.scale
            return conv._conv_forward(q, conv.weight * self.scale, bias)
        return conv(q) * self.scale

    def _recurse(self, x: Tensor, q: Tensor, layers: list[tuple[Tensor, Tensor | None]],
                 conv: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Tensor:
        """Compute all that follows the filter, with weight and bias of each 1x1; channels are the second axis."""
        *inner, last = layers
        g = x
        for (weight, bias), gate in zip(inner, q.split(self.widths, dim=1), strict=True):
            g = conv(g, weight, bias) * gate
        return conv(g, *last)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, order={self.order}, scale={self.scale:g}'
