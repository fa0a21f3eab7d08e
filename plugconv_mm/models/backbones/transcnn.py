"""TransCNN.

Liu et al., "Transformer in Convolutional Neural Networks" / "Vision Transformers with Hierarchical Attention",
https://arxiv.org/abs/2106.03180.
"""
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import check_per_stage, look_up_arch
from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.memory_format import channels_last_on_cpu
from plugconv_mm.ops import HMHSA
from plugconv_mm.ops.mechanisms.batch_norm import conv_bn
from plugconv_mm.ops.residual_block import ResidualBlock, drop_path_rates
from plugconv_mm.registry import MODELS


class TransCNNInvertedResidual(nn.Sequential):
    """A 1x1 expansion, depthwise convolution and 1x1 projection, each with a norm, SiLU after the first two."""

    def __init__(self, channels: int, expand_ratio: int, kernel_size: int, norm_cfg: dict) -> None:
        super().__init__()
        width = channels * expand_ratio
        self.conv1 = ConvNormAct(
            nn.Conv2d(channels, width, 1, bias=False), build_norm_layer(norm_cfg, width)[1], nn.SiLU(inplace=True))
        self.conv2 = ConvNormAct(
            nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False),
            build_norm_layer(norm_cfg, width)[1], nn.SiLU(inplace=True))
        self.conv3 = ConvNormAct(
            nn.Conv2d(width, channels, 1, bias=False), build_norm_layer(norm_cfg, channels)[1])


class TransCNNBlock(ResidualBlock):
    """Two residual branches: x + H-MHSA(x), then x + convolutions(x); the block of HAT-Net, too."""

    def __init__(self, channels: int, head_width: int, grid_size: int, pool_ratio: int, conv: nn.Module,
                 drop_path: float, norm_cfg: dict, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        self.attn = HMHSA(channels, grid_size, pool_ratio, head_width, lambda c: build_norm_layer(norm_cfg, c)[1])
        self.conv = conv

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.conv(x))


class TransCNNDownsample(nn.Module):
    """Two-branch downsampling: a 3x3 of stride 2 plus a 1x1 of the 2x2 maxima, each with a norm, then SiLU."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict) -> None:
        super().__init__()
        # Each norm right after its convolution, where mmcv's fuse_conv_bn takes it to belong.
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm1 = build_norm_layer(norm_cfg, out_channels)[1]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.residual = nn.Conv2d(in_channels, out_channels, 1)
        self.norm2 = build_norm_layer(norm_cfg, out_channels)[1]
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(conv_bn(self.conv, self.norm1, x) + conv_bn(self.residual, self.norm2, self.pool(x)))


@MODELS.register_module()
class TransCNN(Backbone):
    """TransCNN: convolutions between hierarchical self-attention.

    Any image size works: windows and pooled cells that reach over the border of a map count only the positions inside
    it, see :class:`plugconv_mm.ops.HMHSA`.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'medium'``, ``'large'``, or a dict with the keys ``depths`` (blocks per stage),
            ``channels`` (per stage) and ``expand_ratios`` (of the inverted residuals, per stage).
        head_width: Channels of one attention head.
        kernel_sizes: Depthwise kernel of the inverted residuals, per stage.
        grid_sizes: Side of the attention windows, per stage; 1 for attention over the whole map.
        pool_ratios: Pooling in front of the keys and values of the global attention, per stage.
        in_channels: Channels of the image.
        out_indices: Stages to return, at strides 4, 8, 16, 32.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages with the downsampling in front
            of them.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute each block in the backward pass to save memory.
        norm_cfg: The norm after each convolution and in the attention.
        init_cfg: How to initialise the weights.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, channels[i], ceil(H / 2^(i + 2)), ceil(W / 2^(i + 2))).
    """

    arch_settings = {
        'tiny': dict(depths=[2, 2, 4, 2], channels=[64, 128, 256, 512], expand_ratios=[4, 4, 4, 4]),
        'small': dict(depths=[3, 4, 8, 3], channels=[64, 128, 256, 512], expand_ratios=[4, 4, 6, 6]),
        'medium': dict(depths=[3, 4, 12, 3], channels=[64, 128, 320, 640], expand_ratios=[4, 4, 6, 6]),
        'large': dict(depths=[3, 4, 16, 3], channels=[64, 128, 384, 768], expand_ratios=[4, 4, 6, 6]),
    }

    def __init__(self,
                 arch: str | dict = 'tiny',
                 head_width: int = 64,
                 kernel_sizes: Sequence[int] = (5, 3, 5, 3),
                 grid_sizes: Sequence[int] = (8, 8, 8, 1),
                 pool_ratios: Sequence[int] = (8, 4, 2, 1),
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        depths, channels, expand_ratios = arch['depths'], arch['channels'], arch['expand_ratios']
        check_per_stage(4, kernel_sizes=kernel_sizes, grid_sizes=grid_sizes, pool_ratios=pool_ratios)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')

        self.patch_embed = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=2, padding=1), build_norm_layer(norm_cfg, 16)[1],
            nn.SiLU(inplace=True), nn.Conv2d(16, channels[0], 3, stride=2, padding=1))
        rates = drop_path_rates(drop_path_rate, sum(depths))
        self.blocks = nn.ModuleList()
        for i, depth in enumerate(depths):
            if i:
                self.add_module(f'ds{i + 1}', TransCNNDownsample(channels[i - 1], channels[i], norm_cfg))
            self.blocks.append(nn.Sequential(*(
                TransCNNBlock(channels[i], head_width, grid_sizes[i], pool_ratios[i],
                              TransCNNInvertedResidual(channels[i], expand_ratios[i], kernel_sizes[i], norm_cfg),
                              rates.pop(0), norm_cfg, with_cp) for _ in range(depth))))
        self._freeze_stages()

    def _stem(self, x: Tensor) -> Tensor:
        return self.patch_embed(channels_last_on_cpu(x))

    def stage_modules(self, stage: int) -> list[nn.Module]:
        if stage == 0:
            return [self.patch_embed]
        downsample = [getattr(self, f'ds{stage}')] if stage > 1 else []
        return [*downsample, self.blocks[stage - 1]]
