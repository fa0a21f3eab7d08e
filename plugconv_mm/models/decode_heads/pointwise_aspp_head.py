"""The head of DeepLabV3 as its paper has it.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", https://arxiv.org/abs/1706.05587.
"""
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import ASPPHead
from torch import Tensor, nn

from plugconv_mm.registry import MODELS


@MODELS.register_module()
class PointwiseASPPHead(ASPPHead):
    """mmseg's ASPPHead with the paper's 1x1 convolution over the concatenated pyramid, where mmseg has a 3x3.

    ParC-Net was published with this head, of 256 channels. A 3x3 has nine times the parameters, more than the rest of
    it.

    Args:
        pyramid_dropout_ratio: Probability of dropping a feature behind the 1x1. `dropout_ratio` is for whole channels
            in front of the classes.
        **kwargs: As in :class:`mmseg.models.decode_heads.ASPPHead`: in_channels, in_index, channels, dilations,
            num_classes, norm_cfg, act_cfg, align_corners, loss_decode and the rest.

    Shapes:
        maps, that of ``in_index`` (N, in_channels, H, W) -> (N, num_classes, H, W).

    Example:
        >>> import torch
        >>> from plugconv_mm.models.decode_heads import PointwiseASPPHead
        >>> head = PointwiseASPPHead(in_channels=16, channels=8, num_classes=5).eval()
        >>> head((torch.rand(1, 16, 24, 32), )).shape
        torch.Size([1, 5, 24, 32])
    """

    def __init__(self, *, pyramid_dropout_ratio: float = 0., **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bottleneck = ConvModule(
            (len(self.dilations) + 1) * self.channels, self.channels, 1, conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.pyramid_dropout = nn.Dropout(pyramid_dropout_ratio)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.pyramid_dropout(super()._forward_feature(inputs))
