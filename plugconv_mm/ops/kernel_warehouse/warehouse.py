"""The warehouse of kernel cells, and the base of the layers that draw from it."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plugconv_mm.ops.kernel_warehouse.attention import KWAttention


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
        cell_outplane_ratio: Output channels of a cell, likewise.
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
        """Enter the kernel of a layer, which calls this itself, and return the index of its group.

        Raises:
            RuntimeError: If the warehouse was allocated before.
        """
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

    def cells(self) -> list[tuple[int, int, int]]:
        """Number, output and input channels of the cells of each group, from the layers made so far.

        Raises:
            ValueError: If ratios do not fit the groups.
        """
        cells = []
        for group, ratio, in_ratio, out_ratio in zip(
                self._groups, self._per_group('cell_num_ratio'), self._per_group('cell_inplane_ratio'),
                self._per_group('cell_outplane_ratio'), strict=True):
            c_out = max(int(math.gcd(*(s[0] for s in group.shapes)) * out_ratio), 1)
            c_in = max(int(math.gcd(*(s[1] for s in group.shapes)) * in_ratio), 1)
            for shape in group.shapes:
                if shape[0] % c_out or shape[1] % c_in:
                    raise ValueError(f'cells of {c_out} by {c_in} channels do not tile a kernel {shape} of group '
                                     f'{group.name!r}: choose other cell_outplane_ratio and cell_inplane_ratio')
            total = sum(math.prod(s) // (c_out * c_in) for s in group.shapes)
            cells.append((max(int(total * ratio), 1), c_out, c_in))
        return cells

    def allocate(self, network: nn.Module) -> None:
        """Make the cells, and the attentions of the layers of `network`, which must hold all that use this warehouse.

        Cells are handed out in the order of ``network.modules()``.

        Raises:
            ValueError: If ratios do not fit the groups, or `network` lacks layers that were made for this warehouse.
            RuntimeError: If it was called before.
        """
        if len(self.weights):
            raise RuntimeError('this warehouse was allocated before')
        layers = [m for m in network.modules() if isinstance(m, WarehouseLayer) and m.warehouse is self]
        reserved = sum(len(group.shapes) for group in self._groups)
        if len(layers) != reserved:
            raise ValueError(f'{reserved} layers were made for this warehouse, but the network has {len(layers)}')
        self.weights.extend(nn.Parameter(torch.empty(*shape, 1, 1)) for shape in self.cells())
        ratios = self._per_group('cell_num_ratio')
        starts = [0] * len(self._groups)
        for layer in layers:
            i = layer.warehouse_index
            starts[i] = layer._allocate(self.weights[i], starts[i], ratios[i])
        for cells, start in zip(self.weights, starts, strict=True):
            _init_cells(cells[start:])  # ratios that do not come out even leave cells that are no layer's own

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'KernelWarehouse':
        # Module.to(memory_format=torch.channels_last) takes all that has five axes for volumes, and fails.
        return super()._apply(lambda t: fn(t.flatten(2)).view(t.shape), recurse)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}: {tuple(cells.shape)}' for name, cells in zip(self.names, self.weights, strict=False))


class WarehouseLayer(nn.Module):
    """A layer whose kernel is mixed, for each sample, from the cells of a warehouse."""

    def _join(self, warehouse: KernelWarehouse | None, name: str, shape: tuple[int, int, int, int],
              in_channels: int) -> None:
        self.own_warehouse: KernelWarehouse | None = None
        if warehouse is None:
            warehouse = self.own_warehouse = KernelWarehouse()
        # In a list, so that a shared warehouse is not registered once for each layer.
        self._warehouse = [warehouse]
        self.kernel_shape, self._in_channels = shape, in_channels
        self.attention: KWAttention | None = None
        self.warehouse_index = self.warehouse.reserve(name, shape)
        if self.own_warehouse is not None:
            self.own_warehouse.allocate(self)

    @property
    def warehouse(self) -> KernelWarehouse:
        """The warehouse from which the layer draws."""
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


def _init_cells(cells: Tensor) -> None:
    """Kaiming initialisation, fan-out, of cells (n, c_out, c_in, 1, 1) stacked."""
    if len(cells):
        nn.init.normal_(cells, std=math.sqrt(2 / (len(cells) * cells.shape[1])))
