"""A classifier whose weight is mixed from a kernel warehouse.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879.
"""
from typing import Any

from plugconv_mm.models.cls_heads.dropout_linear import DropoutLinearClsHead
from plugconv_mm.ops import KernelWarehouse, KWLinear
from plugconv_mm.registry import MODELS


@MODELS.register_module()
class KWLinearClsHead(DropoutLinearClsHead):
    """A dynamic linear classifier behind dropout, with a warehouse of its own; that of KW-MobileNetV2 with budget 1/2.

    Args:
        num_classes: Number of classes.
        in_channels: Channels C of the pooled features.
        cell_num_ratio: Parameter budget b of the classifier.
        cell_inplane_ratio: Input channels of a cell relative to C.
        cell_outplane_ratio: Output channels of a cell relative to the number of classes.
        reduction: Width of the attention's hidden layer relative to C, at least 16.
        **kwargs: As in :class:`DropoutLinearClsHead`.

    Shapes:
        tuple whose last element is (N, C) -> (N, num_classes).

    Raises:
        ValueError: If the cells do not tile the weight.

    Example:
        >>> import torch
        >>> head = KWLinearClsHead(num_classes=10, in_channels=32, cell_inplane_ratio=0.25)
        >>> head.eval()((torch.rand(2, 32), )).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int, in_channels: int, cell_num_ratio: float = 0.5,
                 cell_inplane_ratio: float = 0.025, cell_outplane_ratio: float = 1., reduction: float = 1 / 32,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.warehouse = KernelWarehouse(cell_num_ratio, cell_inplane_ratio, cell_outplane_ratio, reduction=reduction)
        self.fc = KWLinear(in_channels, num_classes, warehouse=self.warehouse, name='classifier')
        self.warehouse.allocate(self)
