"""ParC-MobileNetV2: a MobileNetV2 whose late blocks convolve globally.

- MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

In a ParC block depthwise ParC-H on one half of the expanded channels and ParC-W on the other stand in for the 3x3
depthwise convolution; everything else is a MobileNetV2, with the parameters' names of torchvision's.
"""
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.mobilenetv2_base import InvertedResidual, MobileNetV2Backbone, conv_norm_relu6
from plugconv_mm.ops import ParCHW2d
from plugconv_mm.ops.residual_block import ResidualBlock
from plugconv_mm.registry import MODELS


def _conv(name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
          groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, dilation * (kernel_size // 2), dilation, groups,
                     bias=False)


class ParCInvertedResidual(ResidualBlock):
    """An inverted residual of stride 1 with ParC-H and ParC-W as its depthwise convolution."""

    def __init__(self, channels: int, expand_ratio: int, meta_size: int, position_embedding: bool, parc_backend: str,
                 drop_path: float, norm_cfg: dict, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        width = channels * expand_ratio
        self.pw_expand = conv_norm_relu6(_conv('pw_expand', channels, width, 1), width, norm_cfg)
        self.parc = ParCHW2d(width, meta_size, position_embedding=position_embedding, backend=parc_backend)
        self.bn = build_norm_layer(norm_cfg, width)[1]
        self.relu = nn.ReLU6(inplace=True)
        self.pw_linear = ConvNormAct(
            nn.Conv2d(width, channels, 1, bias=False), build_norm_layer(norm_cfg, channels)[1])

    def _forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn(self.parc(self.pw_expand(x))))
        return x + self.drop_path(self.pw_linear(y))


@MODELS.register_module()
class ParCMobileNetV2(MobileNetV2Backbone):
    """MobileNetV2 with ParC in the last blocks of groups 4, 5 and 6 of its seven groups of blocks.

    Stages end where a MobileNetV2 changes the resolution: groups 1 and 2; group 3; groups 4 and 5; groups 6 and 7 with
    the last 1x1.

    Args:
        widen_factor: Factor on the widths 16, 24, 32, 64, 96, 160, 320 of the groups, and on the 1280 channels of the
            last 1x1 where it is above 1; rounded to multiples of 8.
        parc_blocks: How many of the last blocks of each of the seven groups are ParC. The first block of a group
            changes width or resolution and keeps its 3x3. Only a group's first ParC has position embeddings.
        parc_backend: Backend of every ParC, see :func:`plugconv_mm.ops.parc_conv2d`.
        strides: Stride of the first block of each group, 1 or 2, as in mmseg's MobileNetV2.
        dilations: Dilation of the 3x3 in the first block of each group, likewise; those after it are not dilated. A
            ParC has a global kernel, which is stretched to the larger map and is not dilated.
        in_channels: Channels of the image.
        out_indices: Stages to return, at strides 4, 8, 16, 32 by default; 24, 32, 96, 1280 channels. In the D8 of
            DeepLabV3+ they are at strides 4, 8, 8, 8, with strides of (1, 2, 2, 1, 1, 1, 1) and dilations of (1, 1, 1,
            2, 2, 4, 4).
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute each block in the backward pass to save memory.
        norm_cfg: The norm after each convolution, batch norm by default.
        init_cfg: How to initialise the weights.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, channels, ceil(H / 2^(i + 2)), ceil(W / 2^(i + 2))) with
        the default strides.

    Raises:
        ValueError: ``parc_blocks`` of a wrong length or beyond what a group can take; strides or dilations that no
            group can have.

    Example:
        >>> import torch
        >>> backbone = ParCMobileNetV2(widen_factor=0.25)
        >>> [tuple(out.shape) for out in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 8, 16, 24), (1, 8, 8, 12), (1, 24, 4, 6), (1, 1280, 2, 3)]
    """

    meta_sizes = (112, 56, 28, 14, 14, 7, 7)  # the sides of the groups' maps of an image of 224 pixels

    def __init__(self,
                 widen_factor: float = 1.,
                 parc_blocks: Sequence[int] = (0, 0, 0, 2, 1, 1, 0),
                 parc_backend: str = 'auto',
                 strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
                 dilations: Sequence[int] = (1, 1, 1, 1, 1, 1, 1),
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        depths = [group.depth for group in self.groups]
        if len(parc_blocks) != 7 or any(not 0 <= n < depth for n, depth in zip(parc_blocks, depths, strict=True)):
            raise ValueError(f'parc_blocks gives how many of the last blocks of each of the 7 groups are ParC, at most '
                             f'{tuple(d - 1 for d in depths)}, as the first keeps its 3x3; got '
                             f'{tuple(parc_blocks)}')
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')

        def block(group: int, number: int, in_channels: int, out_channels: int, stride: int, dilation: int,
                  drop_path: float) -> ResidualBlock:
            expansion, first_parc = self.groups[group].expansion, depths[group] - parc_blocks[group]
            if number < first_parc:
                return InvertedResidual(in_channels, out_channels, stride, dilation, expansion, _conv, norm_cfg,
                                        drop_path, with_cp)
            return ParCInvertedResidual(in_channels, expansion, self.meta_sizes[group], number == first_parc,
                                        parc_backend, drop_path, norm_cfg, with_cp)

        self._add_features(in_channels, widen_factor, strides, dilations, drop_path_rate, norm_cfg, _conv, block)
        self._freeze_stages()
