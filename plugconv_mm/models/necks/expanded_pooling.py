"""A 1x1 expansion of the last map, and its average: the end of ParC-Net and MobileViT.

Zhang et al., "ParC-Net: Position Aware Circular Convolution with Merits from ConvNets and Transformer",
https://arxiv.org/abs/2203.03952.
"""
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.registry import MODELS


@MODELS.register_module()
class ExpandedPooling(BaseModule):
    """A 1x1 convolution, norm and SiLU on the last map, averaged over its positions.

    Args:
        in_channels: Channels of the last map.
        out_channels: Channels of the features.
        norm_cfg: The norm, batch norm by default.
        init_cfg: How to initialise the weights.

    Shapes:
        maps, the last (N, in_channels, H, W) -> tuple of one (N, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or dict(type='Kaiming', layer='Conv2d'))
        self.conv = ConvNormAct(nn.Conv2d(in_channels, out_channels, 1, bias=False),
                                build_norm_layer(norm_cfg or dict(type='BN'), out_channels)[1], nn.SiLU(inplace=True))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        return self.conv(inputs[-1]).mean((2, 3)),
