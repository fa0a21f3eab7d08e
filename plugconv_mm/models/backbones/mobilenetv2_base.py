"""The frame of a MobileNetV2, around convolutions of any kind.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.
"""
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import check_strides_and_dilations
from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.memory_format import channels_last_on_cpu
from plugconv_mm.ops.mechanisms.batch_norm import conv_bn
from plugconv_mm.ops.residual_block import ResidualBlock, drop_path_rates


class MakeConv(Protocol):
    """A maker of same-padded convolutions without a bias, told which of a block's it makes."""

    def __call__(self, name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
                 groups: int = 1, dilation: int = 1) -> nn.Module:
        ...


class _Branch(nn.Sequential):
    """Layers one after the other, of which the last two are a convolution and its norm."""

    def forward(self, x: Tensor) -> Tensor:
        *hidden, projection, norm = self
        for layer in hidden:
            x = layer(x)
        return conv_bn(projection, norm, x)


class InvertedResidual(ResidualBlock):
    """A 1×1 expansion, 3×3 depthwise convolution and linear 1×1 projection; a residual where nothing changes size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        dilation: Its dilation.
        expansion: Factor on the width in between; with 1 there is no expanding convolution.
        conv: Makes the convolutions ``pwconv0``, ``dwconv0`` and ``pwconv1``.
        norm_cfg: Config of the norms.
        drop_path: Probability of dropping the residual branch.
        with_cp: Whether to recompute the block in the backward pass.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, expansion: int,
                 conv: MakeConv, norm_cfg: dict, drop_path: float, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        width = in_channels * expansion
        self.conv = _Branch()
        if expansion != 1:
            self.conv.append(conv_norm_relu6(conv('pwconv0', in_channels, width, 1), width, norm_cfg))
        depthwise = conv('dwconv0', width, width, 3, stride, groups=width, dilation=dilation)
        self.conv.append(conv_norm_relu6(depthwise, width, norm_cfg))
        self.conv.append(conv('pwconv1', width, out_channels, 1))
        self.conv.append(build_norm_layer(norm_cfg, out_channels)[1])
        self.residual = stride == 1 and in_channels == out_channels

    def _forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + self.drop_path(y) if self.residual else y


def conv_norm_relu6(conv: nn.Module, out_channels: int, norm_cfg: dict) -> ConvNormAct:
    """Put a norm and ReLU6 behind a convolution."""
    return ConvNormAct(conv, build_norm_layer(norm_cfg, out_channels)[1], nn.ReLU6(inplace=True))


class Group(NamedTuple):
    """Blocks of one width: by how much they expand it, and how many there are."""

    expansion: int
    channels: int
    depth: int


class MobileNetV2Backbone(Backbone):
    """A stem, seven groups of blocks and a last 1×1 convolution, one after the other in ``features``.

    Stages, as ``out_indices`` and ``frozen_stages`` count them, end where a MobileNetV2 changes the resolution: groups
    1 and 2; group 3; groups 4 and 5; groups 6 and 7 with the last 1×1.

    A subclass calls ``_add_features`` and then ``_freeze_stages`` in its constructor.
    """

    groups: ClassVar[tuple[Group, ...]] = (
        Group(1, 16, 1), Group(6, 24, 2), Group(6, 32, 3), Group(6, 64, 4), Group(6, 96, 3), Group(6, 160, 3),
        Group(6, 320, 1))
    # Layers of ``features``, the stem first, by stage.
    stage_layers: ClassVar[tuple[range, ...]] = (range(0, 1), range(1, 4), range(4, 7), range(7, 14), range(14, 19))

    def _add_features(self, in_channels: int, widen_factor: float, strides: Sequence[int], dilations: Sequence[int],
                      drop_path_rate: float, norm_cfg: dict, conv: MakeConv,
                      block: Callable[[int, int, int, int, int, int, float], ResidualBlock]) -> None:
        """Make all layers.

        Args:
            in_channels: Channels of the image.
            widen_factor: Factor on the widths, which are rounded to multiples of 8.
            strides: Stride of the first block of each group.
            dilations: Dilation of the first block of each group.
            drop_path_rate: Stochastic depth of the last block.
            norm_cfg: Config of the norms.
            conv: Makes the convolutions ``stem`` and ``last``.
            block: Makes a block, from the number of its group and its own number there, its channels before and after,
                its stride, its dilation and its stochastic depth.

        Raises:
            ValueError: Strides or dilations that no group can have.
        """
        check_strides_and_dilations(len(self.groups), strides, dilations)
        channels = make_divisible(32 * widen_factor)
        self.features = nn.Sequential(conv_norm_relu6(conv('stem', in_channels, channels, 3, 2), channels, norm_cfg))
        rates = iter(drop_path_rates(drop_path_rate, sum(group.depth for group in self.groups)))
        for number, group in enumerate(self.groups):
            width = make_divisible(group.channels * widen_factor)
            for i in range(group.depth):
                stride, dilation = (1, 1) if i else (strides[number], dilations[number])
                self.features.append(block(number, i, channels, width, stride, dilation, next(rates)))
                channels = width
        last = make_divisible(1280 * max(1., widen_factor))
        self.features.append(conv_norm_relu6(conv('last', channels, last, 1), last, norm_cfg))

    def _stem(self, x: Tensor) -> Tensor:
        return self.features[0](channels_last_on_cpu(x))

    def stage_modules(self, stage: int) -> list[nn.Module]:
        return [self.features[layer] for layer in self.stage_layers[stage]]


def make_divisible(width: float, divisor: int = 8) -> int:
    """Round `width` to the nearest multiple of `divisor`, but to no less than 90% of it."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded
