"""ParC-MobileNetV2: a MobileNetV2 whose late blocks convolve globally.

- MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

In a ParC block depthwise ParC-H on one half of the expanded channels and ParC-W on the other stand in for the 3x3
depthwise convolution; everything else is a MobileNetV2, with the parameters' names of torchvision's.
"""
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import (
    KAIMING_INIT,
    Backbone,
    ResidualBlock,
    channels_last_on_cpu,
    drop_path_rates,
    make_divisible,
)
from plugconv_mm.ops import ParCHW2d
from plugconv_mm.ops.mechanisms.batch_norm import conv_bn
from plugconv_mm.registry import MODELS


class ConvNormAct(nn.Sequential):
    """Convolution, norm and ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict, stride: int = 1,
                 groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
            build_norm_layer(norm_cfg, out_channels)[1], nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](conv_bn(self[0], self[1], x))


class InvertedResidual(ResidualBlock):
    """1x1 expansion, 3x3 depthwise convolution, linear 1x1 projection; a residual where nothing changes size."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand_ratio: int, drop_path: float,
                 norm_cfg: dict, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        width = in_channels * expand_ratio
        self.conv = nn.Sequential()
        if expand_ratio != 1:
            self.conv.append(ConvNormAct(in_channels, width, 1, norm_cfg))
        self.conv.append(ConvNormAct(width, width, 3, norm_cfg, stride, groups=width))
        self.conv.append(nn.Conv2d(width, out_channels, 1, bias=False))
        self.conv.append(build_norm_layer(norm_cfg, out_channels)[1])
        self.residual = stride == 1 and in_channels == out_channels

    def _forward(self, x: Tensor) -> Tensor:
        *convs, project, norm = self.conv
        y = x
        for conv in convs:
            y = conv(y)
        y = conv_bn(project, norm, y)
        return x + self.drop_path(y) if self.residual else y


class ParCInvertedResidual(ResidualBlock):
    """The inverted residual of stride 1 with ParC-H and ParC-W as its depthwise convolution."""

    def __init__(self, channels: int, expand_ratio: int, meta_size: int, position_embedding: bool, parc_backend: str,
                 drop_path: float, norm_cfg: dict, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        width = channels * expand_ratio
        self.pw_expand = ConvNormAct(channels, width, 1, norm_cfg)
        self.parc = ParCHW2d(width, meta_size, position_embedding=position_embedding, backend=parc_backend)
        self.bn = build_norm_layer(norm_cfg, width)[1]
        self.relu = nn.ReLU6(inplace=True)
        self.pw_linear = nn.Sequential(
            nn.Conv2d(width, channels, 1, bias=False), build_norm_layer(norm_cfg, channels)[1])

    def _forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn(self.parc(self.pw_expand(x))))
        return x + self.drop_path(conv_bn(*self.pw_linear, y))


@MODELS.register_module()
class ParCMobileNetV2(Backbone):
    """MobileNetV2 with ParC in the last blocks of groups 4, 5 and 6 of its seven groups of blocks.

    Stages, as ``out_indices`` and ``frozen_stages`` count them, end where the resolution changes: groups 1 and 2;
    group 3; groups 4 and 5; groups 6 and 7 with the last 1x1.

    Args:
        widen_factor (float): factor on the widths 16, 24, 32, 64, 96, 160, 320 of the groups, and on the 1280
            channels of the last 1x1 where it is above 1; rounded to multiples of 8.
        parc_blocks (Sequence[int]): how many of the last blocks of each of the seven groups are ParC. The first block
            of a group changes width or resolution and keeps its 3x3. Only a group's first ParC has position
            embeddings.
        parc_backend (str): backend of every ParC, see :func:`plugconv_mm.ops.parc_conv2d`.
        in_channels (int): channels of the image.
        out_indices (Sequence[int]): stages to return, at strides 4, 8, 16, 32; 24, 32, 96, 1280 channels.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval (bool): keep batch norms in eval mode while training.
        with_cp (bool): recompute each block in the backward pass to save memory.
        norm_cfg (dict, optional): the norm after each convolution, batch norm by default.
        init_cfg (dict | list[dict], optional): how to initialise the weights.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, channels, ceil(H / 2^(i + 2)), ceil(W / 2^(i + 2))).

    Raises:
        ValueError: ``parc_blocks`` of a wrong length or beyond what a group can take.

    Example:
        >>> import torch
        >>> backbone = ParCMobileNetV2(widen_factor=0.25)
        >>> [tuple(out.shape) for out in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 8, 16, 24), (1, 8, 8, 12), (1, 24, 4, 6), (1, 1280, 2, 3)]
    """

    expand_ratios = (1, 6, 6, 6, 6, 6, 6)
    channels = (16, 24, 32, 64, 96, 160, 320)
    depths = (1, 2, 3, 4, 3, 3, 1)
    strides = (1, 2, 2, 2, 1, 2, 1)
    meta_sizes = (112, 56, 28, 14, 14, 7, 7)  # the sides of the groups' maps of an image of 224 pixels
    # Layers of ``features``, the stem first, by stage.
    stage_layers = (range(0, 1), range(1, 4), range(4, 7), range(7, 14), range(14, 19))

    def __init__(self,
                 widen_factor: float = 1.,
                 parc_blocks: Sequence[int] = (0, 0, 0, 2, 1, 1, 0),
                 parc_backend: str = 'auto',
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        if len(parc_blocks) != 7 or any(not 0 <= n < depth for n, depth in zip(parc_blocks, self.depths, strict=True)):
            raise ValueError(f'parc_blocks gives how many of the last blocks of each of the 7 groups are ParC, at most '
                             f'{tuple(d - 1 for d in self.depths)}, as the first keeps its 3x3; got '
                             f'{tuple(parc_blocks)}')
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg or KAIMING_INIT)
        norm_cfg = norm_cfg or dict(type='BN')
        rates = drop_path_rates(drop_path_rate, sum(self.depths))
        channels = make_divisible(32 * widen_factor)
        self.features = nn.Sequential(ConvNormAct(in_channels, channels, 3, norm_cfg, stride=2))
        for ratio, width, depth, stride, parc, meta_size in zip(
                self.expand_ratios, self.channels, self.depths, self.strides, parc_blocks, self.meta_sizes,
                strict=True):
            width = make_divisible(width * widen_factor)
            for i in range(depth):
                rate = rates.pop(0)
                if i < depth - parc:
                    block = InvertedResidual(channels, width, stride if i == 0 else 1, ratio, rate, norm_cfg, with_cp)
                else:
                    block = ParCInvertedResidual(width, ratio, meta_size, i == depth - parc, parc_backend, rate,
                                                 norm_cfg, with_cp)
                self.features.append(block)
                channels = width
        self.features.append(ConvNormAct(channels, make_divisible(1280 * max(1., widen_factor)), 1, norm_cfg))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.features[0](channels_last_on_cpu(x))
        outs = []
        for i in range(max(self.out_indices) + 1):
            for layer in self.stage_layers[i + 1]:
                x = self.features[layer](x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def stage_modules(self, stage: int) -> list[nn.Module]:
        return [self.features[layer] for layer in self.stage_layers[stage]]
