"""ParC-ConvNeXt: a ConvNeXt whose last blocks convolve globally, and whose other kernels may be large.

- A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

In a ParC block depthwise ParC-H on one half of the channels and ParC-W on the other stand in for the 7x7 depthwise
convolution; everything else is a ConvNeXt.
"""
from collections.abc import Sequence

from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import check_per_stage, look_up_arch
from plugconv_mm.models.backbones.convnext_base import ConvNeXtBackbone, ConvNeXtBlock
from plugconv_mm.ops import DecomposedLargeKernelConv2d, LargeKernelConv2d, ParCHW2d
from plugconv_mm.registry import MODELS


class ParCConvNeXtBlock(ConvNeXtBlock):
    """A ConvNeXt block whose ``dwconv`` is a 7x7, a large kernel or a ParC."""

    def __init__(self, channels: int, dwconv: nn.Module, layer_scale_init: float, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        self.dwconv = dwconv
        self._add_mlp(channels, layer_scale_init)

    def _forward(self, x: Tensor) -> Tensor:
        return self._mlp(x, self.dwconv(x))


@MODELS.register_module()
class ParCConvNeXt(ConvNeXtBackbone):
    """ConvNeXt with ParC in the last blocks of its stages, and 7x7 or large kernels in the others.

    Args:
        arch: ``'xt'``, ``'tiny'``, or a dict with the keys ``channels`` and ``depths``, per stage.
        parc_blocks: How many of the last blocks of each stage are ParC. All zeros make a plain ConvNeXt.
        parc_backend: Backend of every ParC, see :func:`plugconv_mm.ops.parc_conv2d`.
        kernel_size: Kernel of each stage's blocks that are not ParC, odd: 7 is the plain convolution of ConvNeXt, any
            other, from 9 to 61 and beyond, a large kernel, which has batch norms and a deployment form.
        decomposed: Whether large kernels are :class:`~plugconv_mm.ops.DecomposedLargeKernelConv2d`, or whole,
            :class:`~plugconv_mm.ops.LargeKernelConv2d`.
        small_kernel: Short side of decomposed kernels, 5 for None; of whole ones, the size of the small kernel beside,
            or None for none.
        in_channels: Channels of the image.
        out_indices: Stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        layer_scale_init: Initial value of gamma.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval: Keep batch norms in eval mode while training; large kernels alone have any.
        with_cp: Recompute each block in the backward pass to save memory.
        gap_before_final_norm: Whether each output is averaged over its positions before its LayerNorm, as in
            published classifiers; it is (N, C) then.
        init_cfg: How to initialise the weights.

    Shapes:
        (N, in_channels, H, W), sides of at least 32, -> tuple of (N, channels[i], H // 2^(i + 2), W // 2^(i + 2)).

    Raises:
        ValueError: An unknown arch, ``parc_blocks`` of a wrong length or beyond a stage's depth, or ``kernel_size`` of
            a wrong length or even.

    Example:
        >>> import torch
        >>> backbone = ParCConvNeXt(dict(channels=[8, 16, 24, 32], depths=[1, 1, 2, 1]), parc_blocks=(0, 0, 1, 1))
        >>> [tuple(out.shape) for out in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 8, 16, 24), (1, 16, 8, 12), (1, 24, 4, 6), (1, 32, 2, 3)]
    """

    arch_settings = {
        'xt': dict(channels=[48, 96, 192, 384], depths=[3, 3, 9, 3]),
        'tiny': dict(channels=[96, 192, 384, 768], depths=[3, 3, 9, 3]),
    }
    meta_sizes = (56, 28, 14, 7)  # the sides of the stages' maps of an image of 224 pixels

    def __init__(self,
                 arch: str | dict = 'xt',
                 parc_blocks: Sequence[int] = (0, 0, 3, 1),
                 parc_backend: str = 'auto',
                 kernel_size: Sequence[int] = (7, 7, 7, 7),
                 decomposed: bool = False,
                 small_kernel: int | None = None,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 layer_scale_init: float = 1e-6,
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 gap_before_final_norm: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        channels, depths = arch['channels'], arch['depths']
        if len(parc_blocks) != len(depths) or any(not 0 <= n <= d for n, d in zip(parc_blocks, depths, strict=True)):
            raise ValueError(f'parc_blocks gives how many of the last blocks of each stage are ParC, of {depths} '
                             f'blocks; got {tuple(parc_blocks)}')
        check_per_stage(len(depths), kernel_size=kernel_size)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)

        def dwconv(stage: int, number: int) -> nn.Module:
            width, size = channels[stage], kernel_size[stage]
            if number >= depths[stage] - parc_blocks[stage]:
                return ParCHW2d(width, self.meta_sizes[stage], backend=parc_backend)
            if size == 7:
                return nn.Conv2d(width, width, 7, padding=3, groups=width)
            if decomposed:
                return DecomposedLargeKernelConv2d(width, size, small_kernel or 5)
            return LargeKernelConv2d(width, size, small_kernel)

        def block(stage: int, number: int, drop_path: float) -> ParCConvNeXtBlock:
            return ParCConvNeXtBlock(channels[stage], dwconv(stage, number), layer_scale_init, drop_path, with_cp)

        self._add_stages(in_channels, channels, depths, drop_path_rate, block, gap_before_final_norm)
        self._freeze_stages()
