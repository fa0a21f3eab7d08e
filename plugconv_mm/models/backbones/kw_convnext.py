"""KW-ConvNeXt: a ConvNeXt whose convolutions are mixed from kernel warehouses.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, on
Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.
"""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugconv_mm.models.backbones.arch import look_up_arch
from plugconv_mm.models.backbones.convnext_base import ConvNeXtBackbone
from plugconv_mm.models.backbones.kw_base import KWBackbone
from plugconv_mm.ops import KernelWarehouse, KWConv2d, KWLinear, LayerNorm2d
from plugconv_mm.ops.residual_block import ResidualBlock
from plugconv_mm.registry import MODELS


def _pointwise(layer: KWLinear, x: Tensor) -> Tensor:
    """Apply the layer to the channels of a map (N, C, H, W) that is channels-last in memory, as is the result."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class KWConvNeXtBlock(ResidualBlock):
    """A ConvNeXt block of dynamic layers: x + gamma · MLP(LN(7×7 depthwise(x)))."""

    def __init__(self, channels: int, name: str, warehouse: KernelWarehouse, layer_scale_init: float, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        self.dwconv = KWConv2d(channels, channels, 7, padding=3, groups=channels, warehouse=warehouse,
                               name=f'{name}_dwconv0')
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = KWLinear(channels, 4 * channels, warehouse=warehouse, name=f'{name}_pwconv1')
        self.act = nn.GELU()
        self.pwconv2 = KWLinear(4 * channels, channels, warehouse=warehouse, name=f'{name}_pwconv2')
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), layer_scale_init))

    def _forward(self, x: Tensor) -> Tensor:
        y = self.act(_pointwise(self.pwconv1, self.norm(self.dwconv(x))))
        return x + self.drop_path(self.gamma * _pointwise(self.pwconv2, y))


@MODELS.register_module()
class KWConvNeXt(KWBackbone, ConvNeXtBackbone):
    """ConvNeXt with dynamic convolutions of :class:`plugconv_mm.ops.KernelWarehouse`.

    By default each stage has two warehouses, one for its depthwise and one for its pointwise convolutions; the stem and
    each downsampling convolution have their own. Published: ``'tiny'`` with `cell_num_ratio` 1.

    Args:
        arch: ``'tiny'``, or a dict with the keys ``depths`` and ``channels``, per stage.
        in_channels: Channels of the image.
        cell_num_ratio: Parameter budget b; a sequence gives one for each warehouse, here and in the next two.
        cell_inplane_ratio: Input channels of a cell relative to the greatest common divisor.
        cell_outplane_ratio: Output channels of a cell likewise.
        sharing_range: What loses its number in ``stage{s}_layer{l}_dwconv0`` and ``stage{s}_layer{l}_pwconv{k}``, the
            names from which sharing follows.
        nonlocal_basis_ratio: Below 1, size of the basis for the cells of other layers.
        reduction: Width of the attentions' hidden layer relative to the input channels, at least 16.
        out_indices: Stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        layer_scale_init: Initial value of gamma.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages. Cells that a stage that trains
            draws from go on training.
        norm_eval: Keep batch norms in eval mode while training; there are none.
        with_cp: Recompute each block in the backward pass to save memory.
        gap_before_final_norm: Whether each output is averaged over its positions before its LayerNorm, as in
            published classifiers; it is (N, C) then.
        init_cfg: How to initialise the weights; from scratch by default.

    Raises:
        ValueError: An unknown arch, indices that do not exist, or ratios that do not fit the warehouses.

    Shapes:
        (N, in_channels, H, W), sides of at least 32, -> tuple of (N, channels[i], H // 2^(i + 2), W // 2^(i + 2)).

    Example:
        >>> import torch
        >>> backbone = KWConvNeXt(dict(depths=[1, 1, 1, 1], channels=[16, 32, 64, 128]), out_indices=(3, )).eval()
        >>> [tuple(y.shape) for y in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 128, 2, 3)]
    """

    arch_settings = {'tiny': dict(depths=[3, 3, 9, 3], channels=[96, 192, 384, 768])}

    def __init__(self,
                 arch: str | dict = 'tiny',
                 in_channels: int = 3,
                 cell_num_ratio: float | Sequence[float] = 1,
                 cell_inplane_ratio: float | Sequence[float] = 1,
                 cell_outplane_ratio: float | Sequence[float] = 1,
                 sharing_range: Sequence[str] = ('layer', 'pwconv'),
                 nonlocal_basis_ratio: float = 1,
                 reduction: float = 1 / 16,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 layer_scale_init: float = 1e-6,
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 gap_before_final_norm: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        channels = arch['channels']
        warehouse = KernelWarehouse(cell_num_ratio, cell_inplane_ratio, cell_outplane_ratio, sharing_range,
                                    nonlocal_basis_ratio, reduction, norm_layer=nn.LayerNorm)
        super().__init__(warehouse, out_indices, frozen_stages, norm_eval, init_cfg)

        def block(stage: int, number: int, drop_path: float) -> KWConvNeXtBlock:
            return KWConvNeXtBlock(channels[stage], f'stage{stage}_layer{number}', warehouse, layer_scale_init,
                                   drop_path, with_cp)

        self._add_stages(in_channels, channels, arch['depths'], drop_path_rate, block, gap_before_final_norm)
        warehouse.allocate(self)
        self._freeze_stages()

    def _patch_conv(self, stage: int, in_channels: int, out_channels: int, size: int) -> KWConv2d:
        return KWConv2d(in_channels, out_channels, size, stride=size, warehouse=self.warehouse_manager,
                        name=f'downsample{stage - 1}_conv0' if stage else 'stem_conv0')
