"""A linear classifier behind dropout, as MobileNetV2, ParC-Net and HAT-Net have it."""
from collections.abc import Sequence
from typing import Any

from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from plugconv_mm.registry import MODELS


@MODELS.register_module()
class DropoutLinearClsHead(LinearClsHead):
    """mmpretrain's LinearClsHead with dropout before the linear layer.

    Args:
        num_classes: Number of classes.
        in_channels: Channels C of the pooled features.
        dropout: Probability of dropping a feature while training.
        **kwargs: As in ``mmpretrain.models.heads.LinearClsHead``.

    Shapes:
        tuple whose last element is (N, C) -> (N, num_classes).
    """

    def __init__(self, num_classes: int, in_channels: int, dropout: float = 0.2, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.dropout = nn.Dropout(dropout)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Drop features of the last stage; in evaluation they pass."""
        return self.dropout(super().pre_logits(feats))
