"""The attention that mixes the kernel of a layer from the cells of a warehouse."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.batch_norm import norm_of_features


class KWAttention(nn.Module):
    """Weights with which a layer mixes each cell of its kernel from those of the warehouse.

    Pooled features go through a linear layer, the normalisation, ReLU and a linear layer, which gives n + 1 entries z
    for each mixture. They become (1 - τ) · z / (Σ|z| + 1e-3) + τ · β; the last of them counts in the sum alone and is
    dropped. β points at one cell for each mixture, at each cell once while they last, then at the dropped entry.

    Shapes: (N, in_channels) -> (N, num_mixtures, num_cells).

    Paper: KernelWarehouse, https://arxiv.org/abs/2406.07879.

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

    initial_cell: Tensor

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
        self.fc3: nn.Linear | None = None
        self.basis_bias: nn.Parameter | None = None
        self.basis = others  # entries that stand for the cells of other layers
        if basis_ratio >= 1:
            self.fc2 = nn.Linear(hidden, num_mixtures * (num_cells + 1))
        else:
            self.basis = max(int(others * basis_ratio), 16)
            self.fc2 = nn.Linear(hidden, num_mixtures * (self.num_own + self.basis + 1), bias=False)
            self.fc3 = nn.Linear(self.basis, others, bias=False)
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
        """Mix for the pooled features of each sample, at temperature τ."""
        if autocast_dtype(pooled) is not None:
            with torch.autocast(pooled.device.type, enabled=False):
                return self.forward(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), temperature)
        x = F.relu(norm_of_features(self.norm1, self.fc1(pooled)))
        z = self.fc2(x).view(pooled.shape[0], self.num_mixtures, self.num_own + self.basis + 1)
        if self.fc3 is not None and self.basis_bias is not None:
            own, others, dropped = z.split([self.num_own, self.basis, 1], dim=2)
            before, after = self.fc3(others).split(
                [self.own_start, self.num_cells - self.num_own - self.own_start], dim=2)
            z = torch.cat([before, own, after, dropped], dim=2) + self.basis_bias.view(self.num_mixtures, -1)
        z = z.to(torch.promote_types(z.dtype, torch.float32))  # a sum of hundreds is no task for half precision
        z = z / (z.abs().sum(2, keepdim=True) + 1e-3)
        if temperature:
            beta = F.one_hot(self.initial_cell, self.num_cells + 1)
            z = (1 - temperature) * z + temperature * beta
        return z[:, :, :-1]


def pool(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mean of `x` over `axes`, which the attention sees; in float32 under autocast.

    Samples differ in a small part of it, which the normalisation magnifies, and which half precision would lose.
    """
    return x.mean(axes, dtype=None if autocast_dtype(x) is None else torch.promote_types(x.dtype, torch.float32))
