"""KW-MobileNetV2: a MobileNetV2 whose convolutions are mixed from kernel warehouses.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, on
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.
"""
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import nn

from plugconv_mm.models.backbones.kw_base import KWBackbone, conv
from plugconv_mm.models.backbones.mobilenetv2_base import InvertedResidual, MobileNetV2Backbone
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.registry import MODELS


@MODELS.register_module()
class KWMobileNetV2(KWBackbone, MobileNetV2Backbone):
    """MobileNetV2 with dynamic convolutions of :class:`plugconv_mm.ops.KernelWarehouse`.

    The first block of a stage belongs to the previous stage's warehouses. Left at None, the arguments of the
    warehouses are those of the published network of the budget `cell_num_ratio`:

    - 1/2: pointwise convolutions are dynamic in the last two stages only, and their warehouses alone are halved.
      Expansions and projections have one each, and the hidden layers are half as wide.
    - below 4: all pointwise convolutions of a stage share a warehouse, and all depthwise ones.
    - 4 and above: expansions and projections have a warehouse each.

    Args:
        widen_factor: Factor on the widths; 1.0 and 0.5 are published.
        in_channels: Channels of the image.
        cell_num_ratio: Parameter budget b; a sequence gives one for each warehouse, here and in the next two.
        cell_inplane_ratio: Input channels of a cell relative to the greatest common divisor.
        cell_outplane_ratio: Output channels of a cell likewise.
        sharing_range: What loses its number in ``stage{s}_layer{l}_pwconv{k}`` and ``stage{s}_layer{l}_dwconv{k}``, the
            names from which sharing follows.
        nonlocal_basis_ratio: Below 1, size of the basis for the cells of other layers.
        reduction: Width of the attentions' hidden layer relative to the input channels, at least 16.
        dynamic_pointwise: Stages, of 1 to 6, whose pointwise convolutions are dynamic; the last convolution always is.
        strides: Stride of the first block of each of the seven groups, 1 or 2, as in mmseg's MobileNetV2.
        dilations: Dilation of the 3×3 in the first block of each group, likewise; those after it are not dilated.
        out_indices: Outputs to return, at strides 4, 8, 16, 32 by default, with 24, 32, 96, 1280 channels. In the D8 of
            DeepLabV3+ they are at strides 4, 8, 8, 8, with strides of (1, 2, 2, 1, 1, 1, 1) and dilations of (1, 1, 1,
            2, 2, 4, 4).
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and all up to output i - 1. Cells that a stage that
            trains draws from go on training.
        norm_cfg: Normalisation; BN by default.
        norm_eval: Keep batch norms in eval mode while training. Training from scratch needs False.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        with_cp: Recompute each block in the backward pass to save memory.
        init_cfg: How to initialise the weights; from scratch by default.

    Raises:
        ValueError: Indices or stages that do not exist, strides or dilations that no group can have, or ratios that do
            not fit the warehouses.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, C_i, H / 2^(i + 2), W / 2^(i + 2)) with the default strides.

    Example:
        >>> import torch
        >>> backbone = KWMobileNetV2(widen_factor=0.5).eval()
        >>> [tuple(y.shape) for y in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 16, 16, 24), (1, 16, 8, 12), (1, 48, 4, 6), (1, 1280, 2, 3)]
    """

    # For each group of blocks, the stage to whose warehouses those after its first belong.
    warehouse_stages = (1, 2, 3, 4, 5, 6, 6)
    # The published network of budget 1/2. Warehouses: stem, depthwise of stages 1 to 5, pointwise 0, depthwise and
    # pointwise 1 of stage 6.
    half_budget: ClassVar[dict[str, Any]] = dict(
        cell_num_ratio=(1, 1, 1, 1, 1, 1, 0.5, 1, 0.5), cell_inplane_ratio=(1, 1, 1, 1, 1, 1, 0.5, 1, 0.5),
        cell_outplane_ratio=(1, 1, 1, 1, 1, 1, 0.5, 1, 0.5), sharing_range=('layer', ), reduction=1 / 32,
        dynamic_pointwise=(6, ))

    def __init__(self,
                 widen_factor: float = 1.,
                 in_channels: int = 3,
                 cell_num_ratio: float | Sequence[float] = 1,
                 cell_inplane_ratio: float | Sequence[float] | None = None,
                 cell_outplane_ratio: float | Sequence[float] | None = None,
                 sharing_range: Sequence[str] | None = None,
                 nonlocal_basis_ratio: float = 1,
                 reduction: float | None = None,
                 dynamic_pointwise: Sequence[int] | None = None,
                 strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
                 dilations: Sequence[int] = (1, 1, 1, 1, 1, 1, 1),
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1,
                 norm_cfg: dict | None = None,
                 norm_eval: bool = True,
                 drop_path_rate: float = 0.,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        given = dict(cell_inplane_ratio=cell_inplane_ratio, cell_outplane_ratio=cell_outplane_ratio,
                     sharing_range=sharing_range, reduction=reduction, dynamic_pointwise=dynamic_pointwise)
        given: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if cell_num_ratio == 0.5:
            kw: dict[str, Any] = self.half_budget | given
        else:
            wide = not isinstance(cell_num_ratio, Sequence) and cell_num_ratio >= 4
            kw = dict(cell_num_ratio=cell_num_ratio, cell_inplane_ratio=1, cell_outplane_ratio=1,
                      sharing_range=('layer', ) if wide else ('layer', 'pwconv'), reduction=1 / 16,
                      dynamic_pointwise=range(1, 7)) | given
        dynamic = set(kw.pop('dynamic_pointwise'))
        if not dynamic <= set(range(1, 7)):
            raise ValueError(f'dynamic_pointwise must be within 1..6, got {sorted(dynamic)}')
        warehouse = KernelWarehouse(nonlocal_basis_ratio=nonlocal_basis_ratio, **kw)
        super().__init__(warehouse, out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        places = self._places()

        def block(group: int, number: int, in_channels: int, out_channels: int, stride: int, dilation: int,
                  drop_path: float) -> InvertedResidual:
            stage, layer = next(places)

            def conv_of_block(name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
                              groups: int = 1, dilation: int = 1) -> nn.Module:
                return conv(warehouse, f'stage{stage}_layer{layer}_{name}', in_channels, out_channels, kernel_size,
                            stride, groups, dynamic=stage in dynamic or name == 'dwconv0', dilation=dilation)

            return InvertedResidual(in_channels, out_channels, stride, dilation, self.groups[group].expansion,
                                    conv_of_block, norm_cfg, drop_path, with_cp)

        def conv_at_end(name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
                        groups: int = 1, dilation: int = 1) -> nn.Module:
            name = 'stage0_conv0' if name == 'stem' else 'stage{}_layer{}_pwconv1'.format(*next(places))
            return conv(warehouse, name, in_channels, out_channels, kernel_size, stride, groups, dilation=dilation)

        self._add_features(in_channels, widen_factor, strides, dilations, drop_path_rate, norm_cfg, conv_at_end,
                           block)
        warehouse.allocate(self)
        self._freeze_stages()

    @classmethod
    def sizes(cls) -> list[dict[str, Any]]:
        return [dict(widen_factor=width, cell_num_ratio=budget) for width in (1., 0.5) for budget in (0.5, 1, 4)]

    @classmethod
    def _places(cls) -> Iterator[tuple[int, int]]:
        """Yield the stage to whose warehouses each block, and then the last convolution, belongs, and its number there.

        The first block of a group belongs to the previous stage.
        """
        layers, previous = Counter[int](), cls.warehouse_stages[0]
        for group, stage in zip(cls.groups, cls.warehouse_stages, strict=True):
            for home in (previous, *[stage] * (group.depth - 1)):
                yield home, layers[home]
                layers[home] += 1
            previous = stage
        yield previous, layers[previous]
