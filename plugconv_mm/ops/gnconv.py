"""gnConv: recursive gated convolution.

Paper: Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
https://arxiv.org/abs/2207.14284.
"""
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.global_local_filter import GlobalLocalFilter
from plugconv_mm.ops.large_kernel import DecomposedLargeKernelConv2d, LargeKernelConv2d
from plugconv_mm.ops.mechanisms.check_map import check_map
from plugconv_mm.ops.mechanisms.long_kernels import depthwise, is_depthwise
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.token_chunks import token_chunks, token_chunks_pay
from plugconv_mm.ops.parc import ParC2d, ParCHW2d

Filter = str | Mapping[str, Any] | Callable[[int], nn.Module]
_MIXERS: dict[str, Callable[..., nn.Module]] = {
    kind.__name__: kind
    for kind in (DecomposedLargeKernelConv2d, GlobalLocalFilter, LargeKernelConv2d, ParC2d, ParCHW2d)}


def _maker(filter: Filter, filter_size: tuple[int, int]) -> Callable[[int], nn.Module]:
    """What makes a filter from a number of channels."""
    if filter == 'gf':
        return partial(GlobalLocalFilter, h=filter_size[0], w=filter_size[1])
    if isinstance(filter, str) and (match := re.fullmatch(r'k(\d+)|7x7', filter)):
        size = int(match[1] or 7)
        if size % 2 == 0:
            raise ValueError(f'the kernel of a filter is odd, so that it has a centre, got {filter!r}: choose for '
                             f"example 'k{size + 1}'")
        return lambda channels: nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
    if isinstance(filter, Mapping):
        arguments = dict(filter)
        kind = arguments.pop('type', None)
        if kind not in _MIXERS:
            raise ValueError(f'unknown filter {dict(filter)}: its type is one of {", ".join(_MIXERS)}, got {kind!r}')
        return partial(_MIXERS[kind], **arguments)
    if callable(filter):
        return filter
    raise ValueError(
        f"unknown filter {filter!r}: choose one of '7x7', 'gf', a kernel size such as 'k5' or 'k31', a dict whose type "
        f'is one of {", ".join(_MIXERS)}, or a function that makes a module from a number of channels')


def _pointwise(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of tokens (L, C)."""
    return F.linear(tokens, weight.flatten(1), bias)


class GnConv2d(nn.Module):
    """Recursive gated convolution of order n: a convolution whose output holds n-th order products of its input.

    With widths d_i = C / 2^(n-1-i), a 1x1 convolution gives p (d_0 channels) and q (the sum of all d_i channels);
    q goes through one large filter, for which any mixer of positions will do; then g = p * q_0 and, for i = 1..n-1,
    g = W_i(g) * q_i with W_i a 1x1 convolution; a last 1x1 convolution gives the output.

    It keeps the size of the map, so it stands in for any convolution of stride 1 that does.

    Paper: https://arxiv.org/abs/2207.14284. Cost per position: C_in 2C + about 2/3 C^2 + C^2 multiplications in the
    1x1 convolutions (C^2 / 2 instead of 2/3 C^2 for n = 2), and 49 (2C - d_0) in the 7x7 filter.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of the output and of the recursion, by default those of the input. 2^(order-1)
            must divide them, 2^order with 'gf'.
        bias: Whether the output projection has a bias.
        order: n, 2 or more in practice; 2, 3, 4, 5 in the stages of HorNet.
        filter: What filters q, each channel by itself and at the same size:

            - '7x7', a depthwise convolution, or one of another odd kernel, such as 'k5' or 'k31';
            - 'gf', the :class:`GlobalLocalFilter`, with weights of `filter_size`;
            - a dict of a type and its arguments but the channels, as ``dict(type='ParCHW2d', meta_size=14)``,
              ``dict(type='ParC2d', direction='H')`` or ``dict(type='DecomposedLargeKernelConv2d', kernel_size=51)``;
              the types are DecomposedLargeKernelConv2d, LargeKernelConv2d, GlobalLocalFilter, ParC2d and ParCHW2d;
            - a function that makes a module from the number of channels, 2C - d_0.
        filter_size: (h, w) of the complex weight of 'gf'.
        scale: s, multiplies the filter's output: 1/3 in HorNet, 1 in HorFPN.
        proj_out: Whether the last 1x1 convolution is there. Published pyramids may go without it.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, H, W), any H and W.

    Raises:
        ValueError: For widths that 2^(order-1) does not divide, an unknown filter, an even kernel, or a filter that
            cannot be made for the channels; in forward, for integer or complex input, another number of channels or
            dimensions, and a filter that changes the shape of its map.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import GnConv2d
        >>> GnConv2d(64, order=3, scale=1 / 3)(torch.rand(2, 64, 25, 42)).shape
        torch.Size([2, 64, 25, 42])
        >>> GnConv2d(48, 32, filter='gf', filter_size=(14, 8))(torch.rand(2, 48, 13, 7)).shape
        torch.Size([2, 32, 13, 7])
        >>> GnConv2d(32, filter=dict(type='ParCHW2d', meta_size=14))(torch.rand(2, 32, 13, 7)).shape
        torch.Size([2, 32, 13, 7])
    """

    def __init__(self, in_channels: int, out_channels: int | None = None, *, bias: bool = True, order: int = 2,
                 filter: Filter = '7x7', filter_size: tuple[int, int] = (14, 8), scale: float = 1.0,
                 proj_out: bool = True) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        if order < 1:
            raise ValueError(f'the order of a gnConv is 1 or more, got {order}')
        if out_channels < 1 or out_channels % 2**(order - 1):
            raise ValueError(
                f'a gnConv of order {order} halves its width {order - 1} times and cannot do so with {out_channels} '
                f'channels: pass a multiple of {2**(order - 1)}, or a lower order')
        if filter == 'gf' and out_channels // 2**(order - 1) % 2:
            raise ValueError(f"filter='gf' halves the {2 * out_channels - out_channels // 2**(order - 1)} channels "
                             f'that a gnConv of order {order} with {out_channels} channels filters, and cannot: pass '
                             f"a multiple of {2**order} channels, a lower order, or filter='7x7'")
        self.in_channels, self.out_channels, self.order, self.scale = in_channels, out_channels, order, scale
        self.widths = [out_channels // 2**i for i in reversed(range(order))]
        inner = sum(self.widths)
        self.proj_in = nn.Conv2d(in_channels, 2 * out_channels, 1)
        make = _maker(filter, filter_size)
        try:
            made = make(inner)
        except (TypeError, ValueError) as error:
            raise ValueError(f'a gnConv of order {order} with {out_channels} channels filters {inner} channels, for '
                             f'which its filter cannot be made: {error}') from error
        if not isinstance(made, nn.Module):
            raise ValueError(f'the filter {filter} made {made!r} from {inner} channels, expected an nn.Module')
        self.dwconv = made
        self.pws = nn.ModuleList(
            nn.Conv2d(small, large, 1) for small, large in zip(self.widths[:-1], self.widths[1:], strict=True))
        self.proj_out = nn.Conv2d(out_channels, out_channels, 1, bias=bias) if proj_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, in_channels, H, W)."""
        check_map(x, self.in_channels, 'GnConv2d')
        narrow, proj_in, following = self.widths[0], self.proj_in, [*self.pws]
        if not is_plain(self.proj_out, nn.Identity):
            following.append(self.proj_out)
        if (not is_plain(proj_in, nn.Conv2d) or proj_in.bias is None
                or not all([is_plain(conv, nn.Conv2d) for conv in following])):
            p, q = proj_in(x).tensor_split((narrow, ), dim=1)
            first, *gates = self._filter(q).split(self.widths, dim=1)
            g = p * first
            for conv, gate in zip(self.pws, gates, strict=True):
                g = conv(g) * gate
            return self.proj_out(g)
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
            weight, bias = conv.weight * self.scale, None if conv.bias is None else conv.bias * self.scale
            large = conv.kernel_size[0] > 7 and is_depthwise(conv)
            y = depthwise(q, weight, bias, conv.padding) if large else conv._conv_forward(q, weight, bias)
        else:
            y = conv(q)
            y = y if self.scale == 1 else y * self.scale
        if y.shape != q.shape:
            raise ValueError(f'the filter of a gnConv keeps the shape of its map, and {type(conv).__name__} made '
                             f'{tuple(y.shape)} of {tuple(q.shape)}: choose stride 1, "same" padding, and as many '
                             'channels out as in')
        return y

    def _recurse(self, x: Tensor, q: Tensor, layers: list[tuple[Tensor, Tensor | None]],
                 conv: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Tensor:
        """Compute all that follows the filter, with weight and bias of each 1x1; channels are the second axis."""
        g = x
        for (weight, bias), gate in zip(layers, q.split(self.widths, dim=1), strict=False):
            g = conv(g, weight, bias) * gate
        return g if len(layers) == self.order else conv(g, *layers[-1])

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, order={self.order}, scale={self.scale:g}'
