"""SLaK.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
https://arxiv.org/abs/2207.03620.
"""
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import Tensor

from plugconv_mm.models.backbones.arch import look_up_arch
from plugconv_mm.models.backbones.convnext_base import ConvNeXtBackbone, ConvNeXtBlock
from plugconv_mm.ops import DecomposedLargeKernelConv2d, LargeKernelConv2d
from plugconv_mm.registry import MODELS


class SLaKBlock(ConvNeXtBlock):
    """A ConvNeXt block with a large kernel, decomposed or whole: x + gamma · MLP(LN(large kernel(x)))."""

    def __init__(self, channels: int, kernel_size: int, small_kernel: int | None, decomposed: bool, norm_cfg: dict,
                 layer_scale_init: float, drop_path: float, with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        kind = DecomposedLargeKernelConv2d if decomposed else LargeKernelConv2d
        self.large_kernel = kind(channels, kernel_size, small_kernel,
                                 norm_layer=lambda c: build_norm_layer(norm_cfg, c)[1])
        self._add_mlp(channels, layer_scale_init)

    def _forward(self, x: Tensor) -> Tensor:
        return self._mlp(x, self.large_kernel(x))


@MODELS.register_module()
class SLaK(ConvNeXtBackbone):
    """SLaK: a ConvNeXt with depthwise kernels of up to 51×51, each decomposed into 51×5, 5×51 and 5×5, or whole.

    Args:
        arch: ``'tiny'``, ``'small'`` or ``'base'``, or a dict with the keys ``depths`` and ``channels``, per stage,
            before `width_factor`.
        in_channels: Channels of the image.
        kernel_size: M of each stage, odd, of any size from 7 to 61 and beyond. A fifth entry, as in the published
            commands, stands for `small_kernel`.
        small_kernel: Short side of the decomposed kernels and size of the small one, odd. Whole kernels that are not
            larger have no small one, nor have any with None; ``kernel_size=(7, 7, 7, 7, 100)`` are those of the
            published ConvNeXt.
        decomposed: Whether each kernel is decomposed (``--Decom True`` of the published commands), or a whole M×M one,
            as in RepLKNet and in the networks that SLaK is compared with.
        width_factor: Factor on the widths, which are truncated to integers.
        out_indices: Stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        layer_scale_init: Initial value of gamma.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_cfg: Normalisation of the large kernels' branches; BN by default.
        norm_eval: Keep batch norms in eval mode while training.
        with_cp: Recompute each block in the backward pass to save memory.
        deploy: Build the deployed form, into which a deployed checkpoint loads. There,
            ``large_kernel.vertical.{weight,bias}`` and ``large_kernel.horizontal.{weight,bias}``, of shapes (C, 1, M,
            s), (C), (C, 1, s, M), (C), take the place of ``large_kernel.{vertical,horizontal,small_conv}.{conv,bn}.*``
            in each block; with whole kernels ``large_kernel.large_conv.{weight,bias}``, (C, 1, M, M), (C), that of
            ``large_kernel.{large_conv,small_conv}.{conv,bn}.*``.
        gap_before_final_norm: Whether each output is averaged over its positions before its LayerNorm, as in
            published classifiers; it is (N, C) then.
        init_cfg: How to initialise the weights.

    Raises:
        ValueError: An unknown arch, an even kernel size or a wrong number of them, decomposed kernels without a
            `small_kernel`, or indices that do not exist.

    Shapes:
        (N, in_channels, H, W), sides of at least 32, -> tuple of (N, int(channels[i] · width_factor),
        H // 2^(i + 2), W // 2^(i + 2)).

    Example:
        >>> import torch
        >>> backbone = SLaK(dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])).eval()
        >>> [tuple(y.shape) for y in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 10, 16, 24), (1, 20, 8, 12), (1, 41, 4, 6), (1, 83, 2, 3)]
    """

    arch_settings = {
        'tiny': dict(depths=[3, 3, 9, 3], channels=[96, 192, 384, 768]),
        'small': dict(depths=[3, 3, 27, 3], channels=[96, 192, 384, 768]),
        'base': dict(depths=[3, 3, 27, 3], channels=[128, 256, 512, 1024]),
    }

    def __init__(self,
                 arch: str | dict = 'tiny',
                 in_channels: int = 3,
                 kernel_size: Sequence[int] = (51, 49, 47, 13),
                 small_kernel: int | None = 5,
                 decomposed: bool = True,
                 width_factor: float = 1.3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 layer_scale_init: float = 1e-6,
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_cfg: dict | None = None,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 deploy: bool = False,
                 gap_before_final_norm: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        channels = [int(c * width_factor) for c in arch['channels']]
        sizes = tuple(kernel_size)
        if len(sizes) == 5:
            *sizes, small_kernel = sizes
        if len(sizes) != 4:
            raise ValueError('kernel_size gives one size for each of the 4 stages, and perhaps the small one, got '
                             f'{tuple(kernel_size)}')
        if decomposed and small_kernel is None:
            raise ValueError('small_kernel is the short side of decomposed kernels, got None: give it, or '
                             'decomposed=False for whole kernels without a small one')
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')

        def block(stage: int, _: int, drop_path: float) -> SLaKBlock:
            return SLaKBlock(channels[stage], sizes[stage], small_kernel, decomposed, norm_cfg, layer_scale_init,
                             drop_path, with_cp)

        self._add_stages(in_channels, channels, arch['depths'], drop_path_rate, block, gap_before_final_norm)
        if deploy:
            self.switch_to_deploy()
        self._freeze_stages()

    @classmethod
    def sizes(cls) -> list[dict[str, Any]]:
        kernels = (31, 29, 27, 13, 5), (61, 59, 57, 13, 5)  # of the tiny networks that were trained for 120 epochs
        return [*super().sizes(), *(dict(arch='tiny', kernel_size=kernel_size) for kernel_size in kernels)]
