"""The dynamic linear layer of a warehouse."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.kernel_warehouse.attention import pool
from plugconv_mm.ops.kernel_warehouse.warehouse import KernelWarehouse, WarehouseLayer
from plugconv_mm.ops.mechanisms.tracing import is_exporting


class KWLinear(WarehouseLayer):
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
        """Map the last axis of x, each sample by a weight of its own."""
        if x.dim() < 2 or x.shape[-1] != self.in_features:
            raise ValueError(f'expected (N, ..., {self.in_features}), got {tuple(x.shape)}')
        axes = tuple(range(1, x.dim() - 1))
        pooled = pool(x, axes) if axes else x
        batched = is_exporting()  # to ask for the number of samples would fix it
        if not batched and x.numel() == 0:  # a weight of zeros, which has gradients
            return F.linear(x, self.kernels(pooled[:0])[:, :, 0, 0].sum(0), self.bias)
        weight = self.kernels(pooled)[:, :, 0, 0]
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
