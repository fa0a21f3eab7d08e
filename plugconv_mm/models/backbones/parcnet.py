"""ParC-Net.

Zhang et al., "ParC-Net: Position Aware Circular Convolution with Merits from ConvNets and Transformer",
https://arxiv.org/abs/2203.03952. Its outer frame is MobileViT's, https://arxiv.org/abs/2110.02178.
"""
from collections import OrderedDict
from collections.abc import Sequence
from math import gcd

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import check_strides_and_dilations, look_up_arch
from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.memory_format import channels_last_on_cpu
from plugconv_mm.ops import ParC2d
from plugconv_mm.ops.mechanisms.batch_norm import norm_of_features
from plugconv_mm.ops.residual_block import ResidualBlock, drop_path_rates
from plugconv_mm.registry import MODELS


def conv_norm_act(in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict, stride: int = 1,
                  groups: int = 1, act: bool = True, dilation: int = 1) -> ConvNormAct:
    """Make a convolution with its norm and, unless ``act`` says no, SiLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_channels, out_channels, kernel_size, stride, dilation * (kernel_size // 2), dilation, groups,
                       bias=False),
        norm=build_norm_layer(norm_cfg, out_channels)[1])
    if act:
        layers['act'] = nn.SiLU(inplace=True)
    return ConvNormAct(layers)


class ParCNetInvertedResidual(ResidualBlock):
    """A 1x1 expansion by 4, 3x3 depthwise convolution, linear 1x1; a residual where nothing changes size."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, drop_path: float,
                 norm_cfg: dict, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        width = 4 * in_channels
        self.exp_1x1 = conv_norm_act(in_channels, width, 1, norm_cfg)
        self.conv_3x3 = conv_norm_act(width, width, 3, norm_cfg, stride, groups=width, dilation=dilation)
        self.red_1x1 = conv_norm_act(width, out_channels, 1, norm_cfg, act=False)
        self.residual = stride == 1 and in_channels == out_channels

    def _forward(self, x: Tensor) -> Tensor:
        y = self.red_1x1(self.conv_3x3(self.exp_1x1(x)))
        return x + self.drop_path(y) if self.residual else y


class ChannelGate(nn.Module):
    """Squeeze and excitation: x times a factor per channel, found from the channels' means."""

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        width = channels // 16
        self.fc = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), build_norm_layer(norm_cfg, width)[1], nn.Hardswish(),
            nn.Conv2d(width, channels, 1, bias=False), build_norm_layer(norm_cfg, channels)[1], nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        for layer in self.fc:
            gate = norm_of_features(layer, gate)
        return x * gate


class AddEmbedding(nn.Module):
    """A learned embedding of the position along one axis, added to x; it is stretched to the map as ParC's own is."""

    def __init__(self, channels: int, direction: str, meta_size: int) -> None:
        super().__init__()
        size = (meta_size, 1) if direction == 'H' else (1, meta_size)
        self.position_embedding = nn.Parameter(torch.empty(1, channels, *size))
        nn.init.trunc_normal_(self.position_embedding, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        pe = self.position_embedding
        size = tuple(1 if side == 1 else new for side, new in zip(pe.shape[2:], x.shape[2:], strict=True))
        if pe.shape[2:] != size:
            pe = F.interpolate(pe, size=size, mode='bilinear', align_corners=True)
        return x + pe


class MetaFormerBlock(ResidualBlock):
    """A token mixer, ParC-H then ParC-W on half of the channels and the reverse on the other, and a channel mixer.

    The embeddings of the first ParC are added ahead of the norm, so they are no part of it.
    """

    def __init__(self, channels: int, mixer_channels: int, meta_size: int, position_embedding: bool,
                 parc_backend: str, drop_path: float, norm_cfg: dict, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        half = channels // 2

        def first_step(direction: str) -> nn.Sequential:
            return nn.Sequential(OrderedDict(
                pe=AddEmbedding(half, direction, meta_size) if position_embedding else nn.Identity(),
                norm=build_norm_layer(norm_cfg, half)[1],
                parc=ParC2d(half, direction, meta_size, bias=False, position_embedding=False, backend=parc_backend)))

        def second_step(direction: str) -> ParC2d:
            return ParC2d(half, direction, meta_size, bias=False, position_embedding=position_embedding,
                          backend=parc_backend)

        self.branch_hw = nn.Sequential(OrderedDict(first=first_step('H'), second=second_step('W')))
        self.branch_wh = nn.Sequential(OrderedDict(first=first_step('W'), second=second_step('H')))
        self.ffn = nn.Sequential(
            build_norm_layer(norm_cfg, channels)[1], nn.Conv2d(channels, mixer_channels, 1), nn.Hardswish(),
            nn.Conv2d(mixer_channels, channels, 1))
        self.ca = ChannelGate(channels, norm_cfg)

    def _forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        y = torch.cat((self.branch_hw(first), self.branch_wh(second)), dim=1)
        x = x + self.drop_path(y)
        return x + self.drop_path(self.ca(self.ffn(x)))


class BifurcateBlock(nn.Module):
    """A global branch, a chain of MetaFormer blocks at another width, fused with its own input."""

    def __init__(self, channels: int, inner_channels: int, mixer_channels: int, depth: int, meta_size: int,
                 parc_backend: str, rates: list[float], norm_cfg: dict, with_cp: bool) -> None:
        super().__init__()
        groups = gcd(channels, inner_channels)
        self.dim_adaptive = nn.Sequential(
            conv_norm_act(channels, inner_channels, 3, norm_cfg, groups=groups),
            nn.Conv2d(inner_channels, inner_channels, 1, bias=False))
        self.spatial_global_rep = nn.Sequential(
            *(MetaFormerBlock(inner_channels, mixer_channels, meta_size, i == 0, parc_backend, rates[i], norm_cfg,
                              with_cp) for i in range(depth)),
            build_norm_layer(norm_cfg, inner_channels)[1])
        self.channel_adaptive = conv_norm_act(inner_channels, channels, 1, norm_cfg, groups=groups)
        self.local_global_fusion = conv_norm_act(2 * channels, channels, 3, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        y = self.channel_adaptive(self.spatial_global_rep(self.dim_adaptive(x)))
        return self.local_global_fusion(torch.cat((y, x), dim=1))


@MODELS.register_module()
class ParCNet(Backbone):
    """ParC-Net: inverted residuals, then three stages with a branch of global circular convolutions.

    Images of any size and aspect ratio work: kernels and embeddings are stretched along H and W on their own.

    Args:
        arch: ``'s'``, ``'xs'``, or a dict with the keys ``depths``, ``inner_channels`` and ``mixer_channels`` of the
            MetaFormer blocks in each of the last three stages.
        parc_backend: Backend of every ParC, see :func:`plugconv_mm.ops.parc_conv2d`.
        strides: Stride of the first inverted residual of each stage, 1 or 2.
        dilations: Dilation of the inverted residuals of each stage. The convolutions after them are not dilated,
            as in the published segmentors, and a ParC has a global kernel, which is stretched to the larger map.
        in_channels: Channels of the image.
        out_indices: Stages to return, at strides 4, 8, 16, 32 by default; 64, 96, 128, 160 channels. The published
            output stride of 16 has strides of (2, 2, 2, 1) and nothing dilated, that of 8 strides of (2, 2, 1, 1) and
            dilations of (1, 1, 1, 2).
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute each block in the backward pass to save memory.
        norm_cfg: The norms, batch norm by default.
        init_cfg: How to initialise the weights.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, channels, ceil(H / 2^(i + 2)), ceil(W / 2^(i + 2))) with
        the default strides.

    Raises:
        ValueError: An unknown arch, inner widths that two does not divide or below 16, or strides or dilations that no
            stage can have.

    Example:
        >>> import torch
        >>> backbone = ParCNet('xs').eval()
        >>> [tuple(out.shape) for out in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 64, 16, 24), (1, 96, 8, 12), (1, 128, 4, 6), (1, 160, 2, 3)]
    """

    arch_settings = {
        's': dict(depths=[2, 4, 3], inner_channels=[192, 256, 320], mixer_channels=[384, 512, 640]),
        'xs': dict(depths=[2, 3, 2], inner_channels=[96, 128, 160], mixer_channels=[192, 256, 320]),
    }
    channels = (64, 96, 128, 160)
    meta_sizes = (32, 16, 8)  # the sides of the last three stages' maps of an image of 256 pixels

    def __init__(self,
                 arch: str | dict = 's',
                 parc_backend: str = 'auto',
                 strides: Sequence[int] = (2, 2, 2, 2),
                 dilations: Sequence[int] = (1, 1, 1, 1),
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        if any(width % 2 or width < 16 for width in arch['inner_channels']):
            raise ValueError('inner_channels must be even, since they are halved, and at least 16, of which the gate '
                             f'keeps one; got {arch["inner_channels"]}')
        check_strides_and_dilations(4, strides, dilations)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        rates = drop_path_rates(drop_path_rate, 7 + sum(arch['depths']))

        def inverted_residual(in_channels: int, out_channels: int, stride: int = 1,
                              dilation: int = 1) -> ParCNetInvertedResidual:
            return ParCNetInvertedResidual(in_channels, out_channels, stride, dilation, rates.pop(0), norm_cfg, with_cp)

        self.conv_1 = conv_norm_act(in_channels, 16, 3, norm_cfg, stride=2)
        self.layer_1 = nn.Sequential(inverted_residual(16, 32))
        self.layer_2 = nn.Sequential(
            inverted_residual(32, 64, strides[0], dilations[0]),
            *(inverted_residual(64, 64, dilation=dilations[0]) for _ in range(2)))
        for i, depth in enumerate(arch['depths']):
            before, after = self.channels[i:i + 2]
            downsample = inverted_residual(before, after, strides[i + 1], dilations[i + 1])
            bifurcate = BifurcateBlock(after, arch['inner_channels'][i], arch['mixer_channels'][i], depth,
                                       self.meta_sizes[i], parc_backend, [rates.pop(0) for _ in range(depth)],
                                       norm_cfg, with_cp)
            self.add_module(f'layer_{i + 3}', nn.Sequential(downsample, bifurcate))
        self._freeze_stages()

    def _stem(self, x: Tensor) -> Tensor:
        return self.layer_1(self.conv_1(channels_last_on_cpu(x)))

    def stage_modules(self, stage: int) -> list[nn.Module]:
        return [getattr(self, f'layer_{stage + 1}')] if stage else [self.conv_1, self.layer_1]
