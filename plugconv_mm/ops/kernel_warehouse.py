"""KernelWarehouse: dynamic convolutions whose kernels are mixed, cell by cell, from a shared warehouse.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, and
"KernelWarehouse: Towards Parameter-Efficient Dynamic Convolution", https://arxiv.org/abs/2308.08361.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.tracing import is_exporting, side


@dataclass
class _Group:
    """The kernels (out, in / groups, height, width) that share a warehouse."""
    name: str
    shapes: list[tuple[int, int, int, int]]


class KernelWarehouse(nn.Module):
    """Kernel cells shared by the dynamic convolutions of a network, one warehouse for each sharing group.

    Layers are made first, with the warehouse and a name each; :meth:`allocate` then cuts the kernels of every group
    into cells of one shape and makes the cells and the layers' attentions.

    A group of kernels of out_1, out_2, ... output and in_1, in_2, ... input channels is cut into cells of
    gcd(out) · `cell_outplane_ratio` by gcd(in) · `cell_inplane_ratio` channels and extent 1×1. Where that takes m
    cells altogether, the warehouse holds max(int(m · `cell_num_ratio`), 1). Parameters: ``weights``, one
    (n, c_out, c_in, 1, 1) per group in the order in which the groups were first named.

    Paper: KernelWarehouse, https://arxiv.org/abs/2406.07879.

    Args:
        cell_num_ratio: Parameter budget b: cells in the warehouse for each cell of the kernels. A sequence gives one
            for each group, here and below.
        cell_inplane_ratio: Input channels of a cell, as a part of the greatest common divisor of the group's.
        cell_outplane_ratio: The same of the output channels.
        sharing_range: Which parts of a name lose their numbers. With ``('layer', 'conv')``, layers
            ``stage1_layer0_conv0`` and ``stage1_layer2_conv1`` share ``stage1_layer_conv``; with ``()`` nothing is
            shared.
        nonlocal_basis_ratio: Below 1, the attention over the cells of other layers goes through a basis of
            max(int(their number · ratio), 16) entries, which saves parameters.
        reduction: Width of the attentions' hidden layer, as a part of a layer's input channels; at least 16.
        norm_layer: Makes the normalisation of the hidden layer: ``nn.BatchNorm1d`` or ``nn.LayerNorm``.

    Attributes:
        temperature: τ, from 1, at which every mixture is one fixed cell, to 0, at which the attention alone decides.
            Training from scratch starts at 1 and goes linearly to 0 over the first epochs (20; 15 for MobileNetV2);
            a fresh module has 0, the value for evaluation and fine-tuning. It is not part of the state dict.

    Raises:
        ValueError: If a ratio is not positive, a sequence of ratios is not as long as there are groups, or cells do
            not tile the kernels of their group.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from plugconv_mm.ops import KernelWarehouse, KWConv2d
        >>> warehouse = KernelWarehouse(cell_num_ratio=0.5, sharing_range=('conv', ))
        >>> net = nn.Sequential(KWConv2d(16, 32, 3, padding=1, warehouse=warehouse, name='conv1'),
        ...                     KWConv2d(32, 32, 1, warehouse=warehouse, name='conv2'))
        >>> warehouse.allocate(net)
        >>> [tuple(cells.shape) for cells in warehouse.weights]  # 9 + 2 cells of 32x16, half of them kept
        [(5, 32, 16, 1, 1)]
        >>> net.eval()(torch.rand(4, 16, 7, 9)).shape
        torch.Size([4, 32, 7, 9])
    """

    def __init__(self, cell_num_ratio: float | Sequence[float] = 1, cell_inplane_ratio: float | Sequence[float] = 1,
                 cell_outplane_ratio: float | Sequence[float] = 1, sharing_range: Sequence[str] = (),
                 nonlocal_basis_ratio: float = 1, reduction: float = 1 / 16,
                 norm_layer: Callable[[int], nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        ratios = dict(cell_num_ratio=cell_num_ratio, cell_inplane_ratio=cell_inplane_ratio,
                      cell_outplane_ratio=cell_outplane_ratio, nonlocal_basis_ratio=nonlocal_basis_ratio,
                      reduction=reduction)
        for key, value in ratios.items():
            values = value if isinstance(value, Sequence) else [value]
            if not values or any(v <= 0 for v in values):
                raise ValueError(f'{key} must be positive, got {value!r}')
        self.cell_num_ratio = cell_num_ratio
        self.cell_inplane_ratio = cell_inplane_ratio
        self.cell_outplane_ratio = cell_outplane_ratio
        self.sharing_range = tuple(sharing_range.split('_') if isinstance(sharing_range, str) else sharing_range)
        self.nonlocal_basis_ratio = nonlocal_basis_ratio
        self.reduction = reduction
        self.norm_layer = norm_layer
        self.temperature = 0.
        self.weights = nn.ParameterList()
        self._groups: list[_Group] = []

    @property
    def names(self) -> list[str]:
        """The sharing groups, in the order of ``weights``."""
        return [group.name for group in self._groups]

    def set_temperature(self, temperature: float) -> None:
        """Set τ of every layer.

        Raises:
            ValueError: If it is not between 0 and 1.
        """
        if not 0 <= temperature <= 1:
            raise ValueError(f'the temperature goes from 1 to 0, got {temperature}')
        self.temperature = float(temperature)

    def reserve(self, name: str, shape: tuple[int, int, int, int]) -> int:
        """Enter the kernel of a layer; returns the index of its group. The layers call this."""
        if len(self.weights):
            raise RuntimeError(f'the warehouse was allocated before layer {name!r} was made; make all layers first')
        parts = [next((s for s in self.sharing_range if part.startswith(s)), part) for part in name.split('_')]
        name = '_'.join(parts)
        if name not in self.names:
            self._groups.append(_Group(name, []))
        index = self.names.index(name)
        self._groups[index].shapes.append(shape)
        return index

    def _per_group(self, key: str) -> Sequence[float]:
        value = getattr(self, key)
        if not isinstance(value, Sequence):
            return [value] * len(self._groups)
        if len(value) == 1:
            return list(value) * len(self._groups)
        if len(value) != len(self._groups):
            raise ValueError(f'{key} gives {len(value)} ratios, but there are {len(self._groups)} groups: '
                             f'{", ".join(self.names)}')
        return value

    def allocate(self, network: nn.Module) -> None:
        """Make the cells, and the attentions of the layers of `network`, which must hold all that use this warehouse.

        Cells are handed out in the order of ``network.modules()``.

        Raises:
            ValueError: If ratios do not fit the groups, or `network` lacks layers that were made for this warehouse.
            RuntimeError: If it was called before.
        """
        if len(self.weights):
            raise RuntimeError('this warehouse was allocated before')
        layers = [m for m in network.modules() if isinstance(m, _KWLayer) and m.warehouse is self]
        reserved = sum(len(group.shapes) for group in self._groups)
        if len(layers) != reserved:
            raise ValueError(f'{reserved} layers were made for this warehouse, but the network has {len(layers)}')
        ratios = self._per_group('cell_num_ratio')
        for group, ratio, in_ratio, out_ratio in zip(
                self._groups, ratios, self._per_group('cell_inplane_ratio'), self._per_group('cell_outplane_ratio'),
                strict=True):
            c_out = max(int(math.gcd(*(s[0] for s in group.shapes)) * out_ratio), 1)
            c_in = max(int(math.gcd(*(s[1] for s in group.shapes)) * in_ratio), 1)
            for shape in group.shapes:
                if shape[0] % c_out or shape[1] % c_in:
                    raise ValueError(f'cells of {c_out} by {c_in} channels do not tile a kernel {shape} of group '
                                     f'{group.name!r}: choose other cell_outplane_ratio and cell_inplane_ratio')
            total = sum(math.prod(s) // (c_out * c_in) for s in group.shapes)
            self.weights.append(nn.Parameter(torch.empty(max(int(total * ratio), 1), c_out, c_in, 1, 1)))
        starts = [0] * len(self._groups)
        for layer in layers:
            i = layer.warehouse_index
            starts[i] = layer._allocate(self.weights[i], starts[i], ratios[i])
        for cells, start in zip(self.weights, starts, strict=True):
            _init_cells(cells[start:])  # ratios that do not come out even leave cells that are no layer's own

    def _apply(self, fn, recurse: bool = True) -> 'KernelWarehouse':
        # Module.to(memory_format=torch.channels_last) takes all that has five axes for volumes, and fails.
        return super()._apply(lambda t: fn(t.flatten(2)).view(t.shape), recurse)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}: {tuple(cells.shape)}' for name, cells in zip(self.names, self.weights, strict=False))


class KWAttention(nn.Module):
    """Weights with which a layer mixes each cell of its kernel from those of the warehouse.

    Pooled features -> linear, normalisation, ReLU, linear -> for each mixture z of n + 1 entries, scaled to
    (1 - τ) · z / (Σ|z| + 1e-3) + τ · β, of which the last entry only takes part in the sum and is dropped. β points
    at one cell for each mixture, each cell once while they last, and else at the dropped entry.

    Shapes: (N, in_channels) -> (N, num_mixtures, num_cells).

    Args:
        in_channels: Channels of the layer's input.
        hidden: Width of the hidden layer.
        num_cells: n, cells in the warehouse.
        num_mixtures: Cells of the layer's kernel.
        start: First cell of the warehouse that is this layer's own.
        cell_num_ratio: Own cells for each mixture.
        basis_ratio: Below 1, size of the basis of the other layers' cells, as a part of their number.
        norm_layer: Makes the normalisation of the hidden layer.
    """

    def __init__(self, in_channels: int, hidden: int, num_cells: int, num_mixtures: int, start: int,
                 cell_num_ratio: float, basis_ratio: float, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.num_cells, self.num_mixtures = num_cells, num_mixtures
        self.norm1 = norm_layer(hidden)
        self.fc1 = nn.Linear(in_channels, hidden, bias=not isinstance(self.norm1, _BatchNorm))
        # int() at both places as in the published networks: it decides on shapes in their checkpoints.
        self.num_own = int(cell_num_ratio * num_mixtures)
        others = num_cells - self.num_own
        self.own_start = min(start, others)
        self.fc3 = self.basis_bias = None
        if basis_ratio >= 1:
            self.fc2 = nn.Linear(hidden, num_mixtures * (num_cells + 1))
        else:
            basis = max(int(others * basis_ratio), 16)
            self.fc2 = nn.Linear(hidden, num_mixtures * (self.num_own + basis + 1), bias=False)
            self.fc3 = nn.Linear(basis, others, bias=False)
            self.basis_bias = nn.Parameter(torch.zeros(num_mixtures * (num_cells + 1)))
        if cell_num_ratio >= 1:
            cell = start + torch.arange(num_mixtures) * int(cell_num_ratio)
            self.next_start = start + num_mixtures * int(cell_num_ratio)
        else:
            period = int(1 / cell_num_ratio)
            own = [i % period == i // period % period for i in range(num_mixtures)]
            cell = torch.where(torch.tensor(own), start + torch.tensor(own).cumsum(0) - 1, num_cells)
            self.next_start = start + sum(own)
        self.register_buffer('initial_cell', cell.clamp(max=num_cells), persistent=False)
        for linear in (self.fc1, self.fc2, self.fc3):
            if linear is not None:
                nn.init.kaiming_normal_(linear.weight, mode='fan_out', nonlinearity='relu')
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    def forward(self, pooled: Tensor, temperature: float) -> Tensor:
        if autocast_dtype(pooled) is not None:
            with torch.autocast(pooled.device.type, enabled=False):
                return self.forward(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), temperature)
        x = self.fc1(pooled)
        if isinstance(self.norm1, _BatchNorm) and self.norm1.training and len(x) == 1:
            # A single sample has no statistics of its own: normalise it by the running ones.
            norm = self.norm1
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0., norm.eps)
        else:
            x = self.norm1(x)
        z = self.fc2(F.relu(x))
        z = z.view(pooled.shape[0], self.num_mixtures, self.fc2.out_features // self.num_mixtures)
        if self.fc3 is not None:
            own, others, dropped = z.split([self.num_own, self.fc3.in_features, 1], dim=2)
            before, after = self.fc3(others).split(
                [self.own_start, self.fc3.out_features - self.own_start], dim=2)
            z = torch.cat([before, own, after, dropped], dim=2) + self.basis_bias.view(self.num_mixtures, -1)
        z = z.to(torch.promote_types(z.dtype, torch.float32))  # a sum of hundreds is no task for half precision
        z = z / (z.abs().sum(2, keepdim=True) + 1e-3)
        if temperature:
            beta = F.one_hot(self.initial_cell, self.num_cells + 1)
            z = (1 - temperature) * z + temperature * beta
        return z[:, :, :-1]


def pool(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean that the attention sees, in float32 under autocast.

    What samples differ in is a small part of it, of which the normalisation makes much, and half precision little.
    """
    return x.mean(axes, dtype=None if autocast_dtype(x) is None else torch.promote_types(x.dtype, torch.float32))


def _init_cells(cells: Tensor) -> None:
    """Kaiming initialisation, fan-out, of cells (n, c_out, c_in, 1, 1) stacked."""
    if len(cells):
        nn.init.normal_(cells, std=math.sqrt(2 / (len(cells) * cells.shape[1])))


class _KWLayer(nn.Module):
    """A layer whose kernel is mixed, for each sample, from the cells of a warehouse."""

    def _join(self, warehouse: KernelWarehouse | None, name: str, shape: tuple[int, int, int, int],
              in_channels: int) -> None:
        self.own_warehouse = KernelWarehouse() if warehouse is None else None
        # In a list, so that a shared warehouse is not registered once for each layer.
        self._warehouse = [warehouse or self.own_warehouse]
        self.kernel_shape, self._in_channels = shape, in_channels
        self.attention: KWAttention | None = None
        self.warehouse_index = self.warehouse.reserve(name, shape)
        if self.own_warehouse is not None:
            self.own_warehouse.allocate(self)

    @property
    def warehouse(self) -> KernelWarehouse:
        return self._warehouse[0]

    def _allocate(self, cells: Tensor, start: int, cell_num_ratio: float) -> int:
        """Make the attention and initialise the layer's own cells; returns where the next layer's begin."""
        n, c_out, c_in = cells.shape[:3]
        warehouse = self.warehouse
        mixtures = math.prod(self.kernel_shape) // (c_out * c_in)
        self.attention = KWAttention(
            self._in_channels, max(int(self._in_channels * warehouse.reduction), 16), n, mixtures, start,
            cell_num_ratio, warehouse.nonlocal_basis_ratio, warehouse.norm_layer)
        _init_cells(cells[start:max(self.attention.next_start, start + 1)])
        return self.attention.next_start

    def kernels(self, pooled: Tensor) -> Tensor:
        """The kernels (N, out, height, width, in / groups) of N samples from their pooled features (N, C).

        Raises:
            RuntimeError: If the warehouse was not allocated.
        """
        if self.attention is None:
            raise RuntimeError('this layer has no kernel yet: call warehouse.allocate(network) once all layers of the '
                               'network are made')
        cells = self.warehouse.weights[self.warehouse_index]
        alpha = self.attention(pooled, self.warehouse.temperature).to(cells.dtype)
        mixed = alpha @ cells.flatten(1)  # (N, mixtures, c_out · c_in)
        c_out, c_in = cells.shape[1:3]
        out, inner, height, width = self.kernel_shape
        # The cells of a kernel come in the order (position, output block, input block).
        mixed = mixed.view(pooled.shape[0], height * width, out // c_out, inner // c_in, c_out, c_in)
        return mixed.permute(0, 2, 4, 1, 3, 5).reshape(pooled.shape[0], out, height, width, inner)


class KWConv2d(_KWLayer):
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

    transposed = False
    output_padding = (0, 0)

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
        if scale is not None and kernels[0, 0].numel() > x[0, 0].numel() // math.prod(self.stride):
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
        settings = self.stride, self.padding, self.dilation
        if is_exporting():
            y = self._convolve_windows(x, kernels)
            return y if bias is None else y + bias[:, None, None]
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
        """The same without a bias as one product of matrices, for batches whose size is not known yet."""
        extents = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        margins = [0, 0] if self.padding == 'valid' else self.padding
        if self.padding == 'same':
            x = F.pad(x, [side for e in reversed(extents) for side in (e // 2, e - e // 2)])
            margins = [0, 0]
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


class KWLinear(_KWLayer):
    """A dynamic linear layer of a :class:`KernelWarehouse`; see :class:`KWConv2d`.

    Shapes: (N, ..., in_features) -> (N, ..., out_features). The attention sees the mean over all axes but the first
    and the last, so that there is one weight for each of the N samples. It may share a warehouse with convolutions,
    among which it counts as 1×1.

    Paper: KernelWarehouse, https://arxiv.org/abs/2406.07879.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether to add a bias.
        warehouse: The warehouse to share; None gives the layer one of its own, ready for use.
        name: Name from which the sharing group follows.

    Raises:
        ValueError: If an input has the wrong width or less than two axes.
        RuntimeError: If the warehouse was not allocated when the layer is used.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import KWLinear
        >>> KWLinear(32, 10)(torch.rand(4, 7, 32)).shape
        torch.Size([4, 7, 10])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 warehouse: KernelWarehouse | None = None, name: str = 'linear') -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self._join(warehouse, name, (out_features, in_features, 1, 1), in_features)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-1] != self.in_features:
            raise ValueError(f'expected (N, ..., {self.in_features}), got {tuple(x.shape)}')
        axes = tuple(range(1, x.dim() - 1))
        weight = self.kernels(pool(x, axes) if axes else x)[:, :, 0, 0]
        batched = is_exporting()  # to ask for the number of samples would fix it
        if not batched and len(x) == 1:
            return F.linear(x, weight[0], self.bias)
        if not batched and x.device.type == 'cpu':  # where one product for each sample takes the bias along
            return torch.stack([F.linear(sample, w, self.bias) for sample, w in zip(x, weight, strict=True)])
        y = x.reshape(x.shape[0], -1, self.in_features) @ weight.transpose(1, 2)
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return (f'{self.in_features}, {self.out_features}, '
                f'group={self.warehouse.names[self.warehouse_index]!r}')
