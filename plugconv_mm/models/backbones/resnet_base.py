"""The frame of a ResNet, around convolutions of any kind.

He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
"""
from typing import ClassVar

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.memory_format import channels_last_on_cpu
from plugconv_mm.ops.mechanisms.batch_norm import conv_bn
from plugconv_mm.ops.residual_block import ResidualBlock


class ResNetBlock(ResidualBlock):
    """Convolutions, each normalised, ReLU between them, and a shortcut around them all.

    A subclass makes ``conv1``, ``bn1``, ``conv2``, ``bn2``, ... in its constructor and names their number.
    """

    expansion: ClassVar[int]
    num_convs: ClassVar[int]

    def __init__(self, drop_path: float, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: ConvNormAct | None = None

    def _forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.num_convs + 1):
            x = conv_bn(getattr(self, f'conv{i}'), getattr(self, f'bn{i}'), x)
            if i < self.num_convs:
                x = self.relu(x)
        return self.relu(self.drop_path(x).add_(shortcut))


class ResNetBackbone(Backbone):
    """A 7×7 stem with max pooling, and stages ``layer1`` to ``layer4``.

    A subclass calls ``_add_stem``, adds the stages, and calls ``_freeze_stages`` in its constructor.
    """

    def _add_stem(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        """Make the layers in front of the stages."""
        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = build_norm_layer(norm_cfg, channels)[1]
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

    @staticmethod
    def _stride_and_dilation(number: int, stride: int, dilation: int, contract: bool) -> tuple[int, int]:
        """Stride and dilation of a block, by its number in its stage: the stride is the first block's.

        With `contract`, the first block has half of the dilation, as the input of a stage whose stride became a
        dilation is that of the stage before.
        """
        if number:
            return 1, dilation
        return stride, max(dilation // 2, 1) if contract else dilation

    def _stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.relu(conv_bn(self.conv1, self.bn1, channels_last_on_cpu(x))))

    def stage_modules(self, stage: int) -> list[nn.Module]:
        return [getattr(self, f'layer{stage}')] if stage else [self.conv1, self.bn1]
