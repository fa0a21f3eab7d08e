"""HAT-Net, the later form of TransCNN.

Liu et al., "Vision Transformers with Hierarchical Attention", the journal version of https://arxiv.org/abs/2106.03180.
"""
from collections import OrderedDict
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import check_per_stage, look_up_arch
from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.models.backbones.memory_format import channels_last_on_cpu
from plugconv_mm.models.backbones.transcnn import TransCNNBlock
from plugconv_mm.ops.residual_block import drop_path_rates
from plugconv_mm.registry import MODELS


class HATInvertedResidual(nn.Sequential):
    """A norm, 1x1 expansion, depthwise convolution, 1x1 projection and a norm, with SiLU after the first two."""

    def __init__(self, channels: int, expand_ratio: int, kernel_size: int, norm_cfg: dict) -> None:
        width = channels * expand_ratio
        super().__init__(OrderedDict(
            conv1=nn.Sequential(build_norm_layer(norm_cfg, channels)[1], nn.Conv2d(channels, width, 1, bias=False),
                                nn.SiLU(inplace=True)),
            conv2=nn.Sequential(
                nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False),
                nn.SiLU(inplace=True)),
            conv3=nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), build_norm_layer(norm_cfg, channels)[1])))


@MODELS.register_module()
class HATNet(Backbone):
    """HAT-Net: convolutions between hierarchical self-attention, with group norms of one group.

    Any image size works: windows and pooled cells that reach over the border of a map count only the positions inside
    it, see :class:`plugconv_mm.ops.HMHSA`.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'medium'``, ``'large'``, or a dict with the keys ``depths`` (blocks),
            ``channels``, ``head_widths`` (channels of one attention head), ``expand_ratios`` and ``kernel_sizes`` (of
            the inverted residuals), all per stage.
        grid_sizes: Side of the attention windows, per stage; 1 for attention over the whole map.
        pool_ratios: Pooling before the keys and values of the global attention, per stage.
        in_channels: Channels of the image.
        out_indices: Stages to return, at strides 4, 8, 16, 32.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages with the downsampling before
            them.
        norm_eval: Keep batch norms in eval mode while training; with the default ``norm_cfg`` there are none.
        with_cp: Recompute each block in the backward pass to save memory.
        norm_cfg: The norms, by default ``dict(type='GN', num_groups=1, eps=1e-6)``.
        init_cfg: How to initialise the weights.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, channels[i], ceil(H / 2^(i + 2)), ceil(W / 2^(i + 2))).

    Example:
        >>> import torch
        >>> backbone = HATNet('tiny').eval()
        >>> [tuple(out.shape) for out in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 48, 16, 24), (1, 96, 8, 12), (1, 240, 4, 6), (1, 384, 2, 3)]
    """

    arch_settings = {
        'tiny': dict(depths=[2, 2, 6, 3], channels=[48, 96, 240, 384], head_widths=[48] * 4,
                     expand_ratios=[8, 8, 4, 4], kernel_sizes=[3] * 4),
        'small': dict(depths=[2, 3, 8, 3], channels=[64, 128, 320, 512], head_widths=[64] * 4,
                      expand_ratios=[8, 8, 4, 4], kernel_sizes=[3] * 4),
        'medium': dict(depths=[3, 6, 18, 3], channels=[64, 128, 320, 512], head_widths=[64] * 4,
                       expand_ratios=[8, 8, 4, 4], kernel_sizes=[5, 3, 5, 3]),
        'large': dict(depths=[3, 8, 27, 3], channels=[64, 128, 320, 640], head_widths=[64] * 4,
                      expand_ratios=[8, 8, 4, 4], kernel_sizes=[3] * 4),
    }
    default_init_cfg = [dict(type='TruncNormal', layer='Conv2d', std=0.02),
                        dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])]

    def __init__(self,
                 arch: str | dict = 'tiny',
                 grid_sizes: Sequence[int] = (8, 7, 7, 1),
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
        depths, channels = arch['depths'], arch['channels']
        check_per_stage(4, grid_sizes=grid_sizes, pool_ratios=pool_ratios)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='GN', num_groups=1, eps=1e-6)

        self.patch_embed = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=2, padding=1), build_norm_layer(norm_cfg, 16)[1],
            nn.SiLU(inplace=True), nn.Conv2d(16, channels[0], 3, stride=2, padding=1))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.blocks = nn.ModuleList()
        for i, depth in enumerate(depths):
            if i:
                self.add_module(f'ds{i + 1}', nn.Sequential(OrderedDict(
                    conv=nn.Conv2d(channels[i - 1], channels[i], 3, stride=2, padding=1),
                    norm=build_norm_layer(norm_cfg, channels[i])[1])))
            self.blocks.append(nn.Sequential(*(
                TransCNNBlock(channels[i], arch['head_widths'][i], grid_sizes[i], pool_ratios[i],
                              HATInvertedResidual(channels[i], arch['expand_ratios'][i], arch['kernel_sizes'][i],
                                                  norm_cfg),
                              next(rates), norm_cfg, with_cp) for _ in range(depth))))
        self._freeze_stages()

    def _stem(self, x: Tensor) -> Tensor:
        return self.patch_embed(channels_last_on_cpu(x))

    def stage_modules(self, stage: int) -> list[nn.Module]:
        if stage == 0:
            return [self.patch_embed]
        downsample = [getattr(self, f'ds{stage}')] if stage > 1 else []
        return [*downsample, self.blocks[stage - 1]]
