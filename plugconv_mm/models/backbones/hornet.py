"""HorNet.

Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
https://arxiv.org/abs/2207.14284.
"""
from collections.abc import Sequence

from plugconv_mm.models.backbones.arch import look_up_arch
from plugconv_mm.models.backbones.convnext_base import ConvNeXtBackbone
from plugconv_mm.plugging.blocks import HorNetBlock
from plugconv_mm.registry import MODELS


def _settings(base_width: int, filter: str, sizes: list[tuple[int, int]]) -> dict:
    return dict(
        channels=[base_width * 2**i for i in range(4)],
        depths=[2, 3, 18, 2],
        orders=[2, 3, 4, 5],
        filters=['7x7', '7x7', filter, filter],
        filter_sizes=sizes)


@MODELS.register_module()
class HorNet(ConvNeXtBackbone):
    """HorNet: a ConvNeXt whose 7x7 convolutions are gnConv modules of orders 2, 3, 4, 5.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or ``'large'`` followed by ``'-7x7'``, ``'-gf'`` (the global-local
            filter in the last two stages, for images of 224 pixels) or ``'-gf-img384'`` (its weights sized for 384
            pixels); or a dict with the keys ``channels``, ``depths``, ``orders``, ``filters`` (``'7x7'``, ``'gf'``,
            ``'k31'`` and the like, or a dict; see :func:`~plugconv_mm.plugging.convs.gnconv_filter`) and
            ``filter_sizes`` ((h, w) of the complex weight of ``'gf'``), all per stage.
        in_channels: Channels of the image.
        out_indices: Stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        scale: Factor on the output of the filters.
        layer_scale_init: Initial value of gamma1 and gamma2.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: Keep batch norms in eval mode while training; HorNet has none but in large kernels as filters.
        with_cp: Recompute each block in the backward pass to save memory.
        gap_before_final_norm: Whether each output is averaged over its positions before its LayerNorm, as in
            published classifiers; it is (N, C) then.
        init_cfg: How to initialise the weights.

    Shapes:
        (N, in_channels, H, W), sides of at least 32, -> tuple of (N, channels[i], H // 2^(i + 2), W // 2^(i + 2)).
    """

    arch_settings = {
        f'{size}-{name}': _settings(width, filter, sizes)
        for size, width in (('tiny', 64), ('small', 96), ('base', 128), ('large', 192))
        for name, filter, sizes in (('7x7', '7x7', [(14, 8)] * 4), ('gf', 'gf', [(14, 8)] * 3 + [(7, 4)]),
                                    ('gf-img384', 'gf', [(24, 13)] * 3 + [(12, 7)]))
    }

    def __init__(self,
                 arch: str | dict = 'tiny-7x7',
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 scale: float = 1 / 3,
                 layer_scale_init: float = 1e-6,
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 gap_before_final_norm: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)

        def block(stage: int, _: int, drop_path: float) -> HorNetBlock:
            return HorNetBlock(arch['channels'][stage], arch['orders'][stage], arch['filters'][stage],
                               arch['filter_sizes'][stage], scale, layer_scale_init, drop_path, with_cp)

        self._add_stages(in_channels, arch['channels'], arch['depths'], drop_path_rate, block, gap_before_final_norm)
        self._freeze_stages()
