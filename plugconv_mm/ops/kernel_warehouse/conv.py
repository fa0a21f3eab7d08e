"""The dynamic convolution of a warehouse."""
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from plugconv_mm.ops.kernel_warehouse.attention import pool
from plugconv_mm.ops.kernel_warehouse.warehouse import KernelWarehouse, WarehouseLayer
from plugconv_mm.ops.mechanisms.tracing import is_exporting, side


class KWConv2d(WarehouseLayer):
    """A dynamic convolution of a :class:`KernelWarehouse`.

    The kernel of each sample is made of cells Σ_j α_j e_j, mixed from the warehouse's cells e_j with weights that an
    attention draws from the pooled input. The arguments before `warehouse` are those of ``nn.Conv2d``.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H', W') as ``nn.Conv2d``. On a CPU the output is channels-last
    in memory.

    Cost: that of the convolution, and n times the kernel's size in multiply-adds for each sample, n being the cells
    of the warehouse.

    Paper: KernelWarehouse, https://arxiv.org/abs/2406.07879.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size of the kernel.
        stride: Stride.
        padding: Zeros on each side, 'same' or 'valid'.
        dilation: Spacing of the kernel.
        groups: Groups of channels.
        bias: Whether to add a bias.
        warehouse: The warehouse to share; None gives the layer one of its own, ready for use.
        name: Name from which the sharing group follows, ``stage0_layer1_conv2`` for example.

    Raises:
        ValueError: If `groups` does not divide the channels, or an input has the wrong shape.
        RuntimeError: If the warehouse was not allocated when the layer is used.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import KWConv2d
        >>> conv = KWConv2d(16, 32, 3, stride=2, padding=1)
        >>> conv(torch.rand(4, 16, 8, 10)).shape
        torch.Size([4, 32, 4, 5])
    """
    takes_affine = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] | str = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True,
                 warehouse: KernelWarehouse | None = None, name: str = 'conv') -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f'groups must divide the channels, got {groups} groups of {in_channels} and '
                             f'{out_channels} channels')
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.dilation = _pair(dilation)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self._join(warehouse, name, (out_channels, in_channels // groups, *self.kernel_size), in_channels)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Convolve x; then multiply each channel by `scale` and add `shift`, (out_channels) each, where given."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f'expected (N, {self.in_channels}, H, W), got {tuple(x.shape)}')
        kernels = self.kernels(pool(x, (2, 3))).permute(0, 1, 4, 2, 3)
        if scale is not None and math.prod(kernels.shape[2:]) > x.shape[2] * x.shape[3] // math.prod(self.stride):
            # The kernels are larger than the map: scale that.
            y = self._convolve(x, kernels, self.bias)
            scale = scale.to(y.dtype)[:, None, None]
            return y * scale if shift is None else torch.addcmul(shift.to(y.dtype)[:, None, None], y, scale)
        bias = self.bias
        if scale is not None:
            kernels = kernels * scale[:, None, None, None]
            bias = None if bias is None else bias * scale
        if shift is not None:
            bias = shift if bias is None else bias + shift
        return self._convolve(x, kernels, bias)

    def _convolve(self, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        """Each sample with its own kernel (out, in / groups, height, width)."""
        padding: Any = self.padding  # a pair or a name, which conv2d takes in two forms
        settings = self.stride, padding, self.dilation
        if is_exporting():
            y = self._convolve_windows(x, kernels)
            return y if bias is None else y + bias[:, None, None]
        if x.shape[0] == 0:  # a kernel of zeros, which has gradients
            return F.conv2d(x, kernels.sum(0), bias, *settings, self.groups)
        if x.device.type == 'cpu':
            # One convolution for each sample keeps the channels-last layout, in which they are fast there.
            x = x.contiguous(memory_format=torch.channels_last)
            outputs = [F.conv2d(s, k, bias, *settings, self.groups) for s, k in zip(x.split(1), kernels, strict=True)]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        if len(x) == 1:
            return F.conv2d(x, kernels[0], bias, *settings, self.groups)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels.reshape(-1, *kernels.shape[2:]), None, *settings,
                     self.groups * len(x))
        y = y.view(len(x), self.out_channels, *y.shape[2:])
        return y if bias is None else y + bias[:, None, None]

    def _convolve_windows(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Convolve without a bias as one product of matrices, for batches whose size is not known yet."""
        extents = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        margins = (0, 0) if isinstance(self.padding, str) else self.padding
        if self.padding == 'same':
            x = F.pad(x, [margin for e in reversed(extents) for margin in (e // 2, e - e // 2)])
        sizes = [(side(x, dim) + 2 * m - e - 1) // s + 1
                 for dim, m, e, s in zip((2, 3), margins, extents, self.stride, strict=True)]
        if self.kernel_size == (1, 1) and not any(margins):
            windows = x[:, :, ::self.stride[0], ::self.stride[1]]
        else:
            windows = F.unfold(x, self.kernel_size, self.dilation, margins, self.stride)
        n, groups = x.shape[0], self.groups
        inner = self.in_channels // groups * math.prod(self.kernel_size)
        windows = windows.reshape(n, groups, inner, math.prod(sizes))
        return (kernels.reshape(n, groups, -1, inner) @ windows).view(n, self.out_channels, *sizes)

    def extra_repr(self) -> str:
        return (f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, '
                f'padding={self.padding}, dilation={self.dilation}, groups={self.groups}, '
                f'group={self.warehouse.names[self.warehouse_index]!r}')
