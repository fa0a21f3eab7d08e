"""The operators with the arguments of ``nn.Conv2d``, in whose place they stand.

A ``conv_cfg=dict(type='plugconv_mm.GnConv2d')`` and the like makes them, wherever a convolution is built with
``mmcv.cnn.build_conv_layer``, as in every ``ConvModule``, and so do the rules of ``plugconv_mm.plug``. Arguments
that they cannot honour are refused; what is their own stands in the ``conv_cfg`` or the rule. Stride 1 and "same"
padding are what all but ``KWConv2d`` ask for: their kernels are as large as they are, whatever ``kernel_size`` the
layer had.

===============================  =======================  =================  ================================
type                             channels                 groups             bias
===============================  =======================  =================  ================================
``GnConv2d``                     any that order divides   1                  of the output projection
``ParC2d``                       as many out as in        any                as asked
``ParCHW2d``                     as many out as in, even  1 or all channels  as asked
``ParCMixer``                    as many out as in, even  all channels       as asked
``GlobalLocalFilter``            as many out as in, even  all channels       either: its last norm has one
``DecomposedLargeKernelConv2d``  as many out as in        all channels       either: its batch norms have one
``LargeKernelConv2d``            as many out as in        all channels       either: its batch norms have one
``KWConv2d``                     any                      any                as asked
===============================  =======================  =================  ================================
"""
from collections.abc import Mapping
from typing import ClassVar

from torch import nn
from torch.nn.modules.utils import _pair

from plugconv_mm import ops
from plugconv_mm.plugging.same_padding import Size, check_same_padding


class _LikeConv2d:
    """Attributes of a convolution that mmcv's ConvModule reads from it, and their checks."""

    transposed = False
    output_padding = (0, 0)
    kernel_size: tuple[int, int]
    padding: tuple[int, int] | str
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    def _take_size(self, kernel_size: Size, stride: Size, padding: Size | str | None, dilation: Size) -> None:
        self.kernel_size, self.padding = check_same_padding(type(self).__name__, kernel_size, stride, padding, dilation)


class _SameShape(_LikeConv2d):
    """Attributes and checks of a convolution that keeps the number of channels as well."""

    def _take(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, padding: Size | str,
              dilation: Size) -> None:
        name = type(self).__name__
        self._take_size(kernel_size, stride, padding, dilation)
        if _pair(dilation) != (1, 1):
            raise ValueError(f'{name} has a kernel of its own, which cannot be dilated, got dilation={dilation}')
        if in_channels != out_channels:
            raise ValueError(f'{name} has as many channels out as in, got {in_channels} and {out_channels}: leave such '
                             'a layer a plain convolution, or change the width with a 1x1 before it')
        self.in_channels = self.out_channels = in_channels

    def _take_depthwise(self, groups: int) -> None:
        if groups != self.in_channels:
            raise ValueError(f'{type(self).__name__} treats each channel by itself: it replaces depthwise convolutions '
                             f'only, with groups={self.in_channels} here, got groups={groups}')
        self.groups = groups


class _OwnInit(nn.Conv2d):
    """A parent between, as ``init_cfg=dict(layer='Conv2d')`` goes by the name of a class and of its direct bases."""


class _InnerConv2d(_OwnInit):
    """An ``nn.Conv2d`` that is out of reach of ``init_cfg=dict(layer='Conv2d')``."""


def gnconv_filter(filter: ops.gnconv.Filter) -> ops.gnconv.Filter:
    """A filter of a gnConv as a config names it, as :class:`plugconv_mm.ops.GnConv2d` takes it.

    Args:
        filter: '7x7', 'gf' or a kernel size such as 'k31', as for the operator; or a dict whose type is one of the
            convolutions in ``CONVS``, with the rest of a ``conv_cfg`` and ``kernel_size``, 7 by default.
            They are built depthwise: ``dict(type='ParCHW2d', meta_size=14)``,
            ``dict(type='DecomposedLargeKernelConv2d', kernel_size=51)``, ``dict(type='KWConv2d', kernel_size=7)``.

    Raises:
        ValueError: The type is none of these convolutions.
    """
    if not isinstance(filter, Mapping):
        return filter
    arguments = {'kernel_size': 7, 'padding': 'same', **filter}
    kind = arguments.pop('type', None)
    conv = CONVS.get(kind.removeprefix('plugconv_mm.')) if isinstance(kind, str) else kind
    if not (isinstance(conv, type) and issubclass(conv, _LikeConv2d)) or issubclass(conv, ops.GnConv2d):
        known = ', '.join(name for name in CONVS if name != 'GnConv2d')
        raise ValueError(f'unknown filter {dict(filter)}: its type is one of {known}, got {kind!r}')
    return lambda channels: conv(channels, channels, groups=channels, **arguments)


class GnConv2d(_LikeConv2d, ops.GnConv2d):
    """:class:`plugconv_mm.ops.GnConv2d` with the arguments of ``nn.Conv2d``; it keeps its own initialisation.

    The heads of detectors draw every ``nn.Conv2d`` in them with a deviation of 0.01. A product of three convolutions
    drawn so is zero, and so are its gradients.

    A gnConv of order n is a polynomial of degree n + 1 of its input: where several are stacked, give them a
    ``norm_cfg``, without which their outputs vanish or explode.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, by default those of the input; 2^(order-1) must divide them, 2^order with
            'gf'.
        kernel_size: Checked and not used, as are the next three: the filter is 7x7 or global.
        stride: Nothing but 1.
        padding: The padding that keeps the map's size at ``kernel_size``; None and 'same' stand for it.
        dilation: Spacing of the kernel, with which ``padding`` must agree.
        groups: Nothing but 1.
        bias: Whether the output projection has a bias.
        order: As in :class:`plugconv_mm.ops.GnConv2d`, as are the next four.
        filter: '7x7', 'gf', 'k31' and the like, or a dict; see :func:`gnconv_filter`.
        filter_size: (h, w) of the complex weight of 'gf'.
        scale: Factor on the filter's output.
        proj_out: Whether there is an output projection.

    Raises:
        ValueError: If a convolution with these arguments would change the map's size, for groups, and as in
            :class:`plugconv_mm.ops.GnConv2d`.

    Example:
        >>> import torch
        >>> from mmcv.cnn import ConvModule
        >>> conv_cfg = dict(type='plugconv_mm.GnConv2d', order=3, filter='gf')
        >>> ConvModule(16, 32, 3, padding=1, conv_cfg=conv_cfg, norm_cfg=dict(type='BN'))(torch.rand(2, 16, 9, 7)).shape
        torch.Size([2, 32, 9, 7])
    """

    _inner_conv: ClassVar[type[nn.Conv2d]] = _InnerConv2d

    def __init__(self, in_channels: int, out_channels: int | None = None, kernel_size: Size = 7, stride: Size = 1,
                 padding: Size | str | None = None, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 order: int = 2, filter: ops.gnconv.Filter = '7x7', filter_size: tuple[int, int] = (14, 8),
                 scale: float = 1.0, proj_out: bool = True) -> None:
        self._take_size(kernel_size, stride, padding, dilation)
        if groups != 1:
            raise ValueError(f'GnConv2d mixes all channels: it replaces convolutions with groups 1 only, got {groups}')
        super().__init__(in_channels, out_channels, bias=bias, order=order, filter=gnconv_filter(filter),
                         filter_size=filter_size, scale=scale, proj_out=proj_out)
        self.groups, self.dilation = groups, _pair(dilation)
        for conv in self.modules():
            if type(conv) is nn.Conv2d:
                conv.__class__ = self._inner_conv


class HorGnConv2d(GnConv2d):
    """The gnConv of ``HorFPN`` and ``HorUPerHead``, initialised by their ``init_cfg``, as published."""

    _inner_conv = nn.Conv2d


class ParC2d(_SameShape, ops.ParC2d):
    """:class:`plugconv_mm.ops.ParC2d` with the arguments of ``nn.Conv2d``.

    Args:
        in_channels: As in ``nn.Conv2d``, as are the next seven; with groups of 1, ParC's kernel is dense.
        direction: ``'H'`` or ``'W'``.
        meta_size: Length of kernel and embedding, which are stretched to the map.
        position_embedding: Whether there is an embedding.
        backend: As in :func:`plugconv_mm.ops.parc_conv2d`.

    Raises:
        ValueError: If a convolution with these arguments would change the size or the number of channels, or is
            dilated.

    Example:
        >>> import torch
        >>> from mmcv.cnn import ConvModule
        >>> conv_cfg = dict(type='plugconv_mm.ParC2d', direction='W', meta_size=28)
        >>> ConvModule(16, 16, 3, padding=1, groups=16, conv_cfg=conv_cfg)(torch.rand(2, 16, 9, 7)).shape
        torch.Size([2, 16, 9, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 direction: str = 'H', meta_size: int = 14, position_embedding: bool = True,
                 backend: str = 'auto') -> None:
        self._take(in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(in_channels, direction, meta_size, groups, bias, position_embedding, backend)

    def init_weights(self) -> None:
        """Keep the operator's own initialisation, which ConvModule would replace."""
        self.reset_parameters()


class ParCHW2d(_SameShape, ops.ParCHW2d):
    """:class:`plugconv_mm.ops.ParCHW2d` with the arguments of ``nn.Conv2d``; what ParC-ResNet has for its 3x3.

    Args:
        in_channels: As in ``nn.Conv2d``, as are the next seven; even. With groups of 1 each half is dense in itself.
        meta_size: As in :class:`ParC2d`, as are the next two.
        position_embedding: Whether there is an embedding.
        backend: As in :func:`plugconv_mm.ops.parc_conv2d`.

    Raises:
        ValueError: As in :class:`ParC2d`, and for other groups than 1 and all channels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 meta_size: int = 14, position_embedding: bool = True, backend: str = 'auto') -> None:
        self._take(in_channels, out_channels, kernel_size, stride, padding, dilation)
        if groups not in (1, in_channels):
            raise ValueError(f'ParCHW2d is dense or depthwise in each half of its channels: it replaces convolutions '
                             f'with groups of 1 or {in_channels} here, got groups={groups}')
        super().__init__(in_channels, meta_size, groups != 1, position_embedding, backend, bias)
        self.groups = groups


class ParCMixer(_SameShape, ops.ParCMixer):
    """:class:`plugconv_mm.ops.ParCMixer` with the arguments of ``nn.Conv2d``; its view is the whole map.

    Args:
        in_channels: As in ``nn.Conv2d``, as are the next seven; even, and all of them groups.
        meta_size: As in :class:`ParC2d`, as are the next two.
        position_embedding: Whether there are embeddings.
        backend: As in :func:`plugconv_mm.ops.parc_conv2d`.

    Raises:
        ValueError: As in :class:`ParC2d`, and for a convolution that is not depthwise.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 meta_size: int = 14, position_embedding: bool = True, backend: str = 'auto') -> None:
        self._take(in_channels, out_channels, kernel_size, stride, padding, dilation)
        self._take_depthwise(groups)
        super().__init__(in_channels, meta_size, position_embedding, backend, bias)


class GlobalLocalFilter(_SameShape, ops.GlobalLocalFilter):
    """:class:`plugconv_mm.ops.GlobalLocalFilter` with the arguments of ``nn.Conv2d``; the bias is in its last norm.

    Args:
        in_channels: As in ``nn.Conv2d``, as are the next seven; even, and all of them groups.
        h: Rows of the complex weight, which is stretched to the map.
        w: Columns of the complex weight.

    Raises:
        ValueError: As in :class:`ParC2d`, and for a convolution that is not depthwise.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 h: int = 14, w: int = 8) -> None:
        self._take(in_channels, out_channels, kernel_size, stride, padding, dilation)
        self._take_depthwise(groups)
        super().__init__(in_channels, h, w)


class _LargeSize(_SameShape):
    """The size of a large kernel, the layer's or that of the config."""

    def _large_size(self, large_kernel: int | None, small_kernel: int | None) -> int:
        height, width = (large_kernel, large_kernel) if large_kernel else self.kernel_size
        if height != width or height < (small_kernel or 1):
            raise ValueError(f'the large kernel is square and not below small_kernel={small_kernel}, got {height}x'
                             f'{width}: set large_kernel in the conv_cfg')
        return height


class DecomposedLargeKernelConv2d(_LargeSize, ops.DecomposedLargeKernelConv2d):
    """:class:`plugconv_mm.ops.DecomposedLargeKernelConv2d` with the arguments of ``nn.Conv2d``; its norms have biases.

    Args:
        in_channels: As in ``nn.Conv2d``, as are the next seven; all channels are groups.
        large_kernel: M; by default the `kernel_size` that the layer asks for.
        small_kernel: Short side of the kernels, and size of the small one.

    Raises:
        ValueError: As in :class:`GlobalLocalFilter`, and for kernels that are even, not square, or smaller than
            `small_kernel`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 large_kernel: int | None = None, small_kernel: int = 5) -> None:
        self._take(in_channels, out_channels, kernel_size, stride, padding, dilation)
        self._take_depthwise(groups)
        super().__init__(in_channels, self._large_size(large_kernel, small_kernel), small_kernel)


class LargeKernelConv2d(_LargeSize, ops.LargeKernelConv2d):
    """:class:`plugconv_mm.ops.LargeKernelConv2d` with the arguments of ``nn.Conv2d``; its norms have biases.

    Args:
        in_channels: As in ``nn.Conv2d``, as are the next seven; all channels are groups.
        large_kernel: M; by default the `kernel_size` that the layer asks for.
        small_kernel: Size of the small kernel, or None.

    Raises:
        ValueError: As in :class:`DecomposedLargeKernelConv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
                 padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, *,
                 large_kernel: int | None = None, small_kernel: int | None = 5) -> None:
        self._take(in_channels, out_channels, kernel_size, stride, padding, dilation)
        self._take_depthwise(groups)
        super().__init__(in_channels, self._large_size(large_kernel, small_kernel), small_kernel)


class KWConv2d(_LikeConv2d, ops.KWConv2d):
    """:class:`plugconv_mm.ops.KWConv2d`, which takes the place of any ``nn.Conv2d``.

    Built from a config, it has a warehouse of its own, of budget 1; to share one, build the layers with ``warehouse=``
    and call its ``allocate``.
    """


CONVS: dict[str, type[nn.Module]] = {conv.__name__: conv for conv in (
    DecomposedLargeKernelConv2d, GlobalLocalFilter, GnConv2d, KWConv2d, LargeKernelConv2d, ParC2d, ParCHW2d,
    ParCMixer)}
