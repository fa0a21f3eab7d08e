"""KW-ResNet: a ResNet whose convolutions are mixed from kernel warehouses.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, on
He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
"""
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import nn

from plugconv_mm.models.backbones.arch import check_strides_and_dilations
from plugconv_mm.models.backbones.conv_norm_act import ConvNormAct
from plugconv_mm.models.backbones.kw_base import KWBackbone, conv
from plugconv_mm.models.backbones.resnet_base import ResNetBackbone, ResNetBlock
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.registry import MODELS


class KWBasicBlock(ResNetBlock):
    """A residual block of 3×3 and 3×3, dynamic; the first of them has the stride and the dilation."""

    expansion, num_convs = 1, 2

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, names: Sequence[str],
                 warehouse: KernelWarehouse, first_dynamic: bool, norm_cfg: dict, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        self.conv1 = conv(warehouse, names[0], in_channels, width, 3, stride, dilation=dilation)
        self.bn1 = build_norm_layer(norm_cfg, width)[1]
        self.conv2 = conv(warehouse, names[1], width, width, 3)
        self.bn2 = build_norm_layer(norm_cfg, width)[1]


class KWBottleneck(ResNetBlock):
    """A residual block of 1×1, 3×3 and 1×1, dynamic but for the first one where it says so."""

    expansion, num_convs = 4, 3

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, names: Sequence[str],
                 warehouse: KernelWarehouse, first_dynamic: bool, norm_cfg: dict, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        self.conv1 = conv(warehouse, names[0], in_channels, width, 1, dynamic=first_dynamic)
        self.bn1 = build_norm_layer(norm_cfg, width)[1]
        self.conv2 = conv(warehouse, names[1], width, width, 3, stride, dilation=dilation)
        self.bn2 = build_norm_layer(norm_cfg, width)[1]
        self.conv3 = conv(warehouse, names[2], width, width * 4, 1)
        self.bn3 = build_norm_layer(norm_cfg, width * 4)[1]


@MODELS.register_module()
class KWResNet(KWBackbone, ResNetBackbone):
    """ResNet with dynamic convolutions of :class:`plugconv_mm.ops.KernelWarehouse`.

    All 1×1 and 3×3 convolutions of a stage share a warehouse, but for its first convolution and the convolution of
    its shortcut, which belong to the previous stage's. The stem, and in stage 1 of networks with bottlenecks the first
    convolution and the shortcut, stay plain. Published: depth 18 with `cell_num_ratio` 1/4, 1/2 (both with
    `cell_inplane_ratio` and `cell_outplane_ratio` of 1/2), 1, 2, 4; depth 50 with 1/2 (those at 1/2 too, and
    `nonlocal_basis_ratio` of 1/16), 1, 4.

    Args:
        depth: 18, 34, 50 or 101.
        in_channels: Channels of the image.
        cell_num_ratio: Parameter budget b; a sequence gives one for each warehouse, here and in the next two.
        cell_inplane_ratio: Input channels of a cell relative to the greatest common divisor.
        cell_outplane_ratio: Output channels of a cell likewise.
        sharing_range: What loses its number in ``stage{s}_layer{l}_conv{k}``, the names from which sharing follows.
        nonlocal_basis_ratio: Below 1, size of the basis for the cells of other layers.
        reduction: Width of the attentions' hidden layer relative to the input channels, at least 16.
        strides: Stride of the first block of each stage, 1 or 2.
        dilations: Dilation of the 3×3 convolutions of each stage, of the first one where a block has two.
        contract_dilation: Whether the first block of a dilated stage has half of the dilation.
        out_indices: Stages to return, at strides 4, 8, 16, 32 by default; 4, 8, 8, 8 in the D8 of PSPNet and DeepLab,
            with strides of (1, 2, 1, 1), dilations of (1, 1, 2, 4) and `contract_dilation`.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages. Cells that a stage that trains
            draws from go on training.
        norm_cfg: Normalisation; BN by default.
        norm_eval: Keep batch norms in eval mode while training. Training from scratch needs False.
        drop_path_rate: Stochastic depth of every block.
        with_cp: Recompute each block in the backward pass to save memory.
        init_cfg: How to initialise the weights; from scratch by default.

    Raises:
        ValueError: An unknown depth, strides or dilations that no stage can have, indices that do not exist, or ratios
            whose cells do not tile the kernels.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, 64 · 2^i · expansion, H / 2^(i + 2), W / 2^(i + 2)) with the default
        strides, and an expansion of 1 below depth 50 and 4 from there on.

    Example:
        >>> import torch
        >>> backbone = KWResNet(depth=18, cell_num_ratio=1, out_indices=(3, )).eval()
        >>> [tuple(y.shape) for y in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 512, 2, 3)]
    """

    depths = {
        18: (KWBasicBlock, (2, 2, 2, 2)),
        34: (KWBasicBlock, (3, 4, 6, 3)),
        50: (KWBottleneck, (3, 4, 6, 3)),
        101: (KWBottleneck, (3, 4, 23, 3)),
    }
    # Published: depth, budget, ratios of the cells, and of the basis for the cells of other layers.
    published = ((18, 0.25, 0.5, 1), (18, 0.5, 0.5, 1), (18, 1, 1, 1), (18, 2, 1, 1), (18, 4, 1, 1),
                 (50, 0.5, 0.5, 1 / 16), (50, 1, 1, 1), (50, 4, 1, 1))

    def __init__(self,
                 depth: int = 50,
                 in_channels: int = 3,
                 cell_num_ratio: float | Sequence[float] = 1,
                 cell_inplane_ratio: float | Sequence[float] = 1,
                 cell_outplane_ratio: float | Sequence[float] = 1,
                 sharing_range: Sequence[str] = ('layer', 'conv'),
                 nonlocal_basis_ratio: float = 1,
                 reduction: float = 1 / 16,
                 strides: Sequence[int] = (1, 2, 2, 2),
                 dilations: Sequence[int] = (1, 1, 1, 1),
                 contract_dilation: bool = False,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1,
                 norm_cfg: dict | None = None,
                 norm_eval: bool = True,
                 drop_path_rate: float = 0.,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        if depth not in self.depths:
            raise ValueError(f'depth must be one of {", ".join(map(str, self.depths))}, got {depth}')
        check_strides_and_dilations(4, strides, dilations)
        warehouse = KernelWarehouse(cell_num_ratio, cell_inplane_ratio, cell_outplane_ratio, sharing_range,
                                    nonlocal_basis_ratio, reduction)
        super().__init__(warehouse, out_indices, frozen_stages, norm_eval, init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        self._add_stem(in_channels, 64, norm_cfg)
        block, counts = self.depths[depth]
        channels, previous = 64, 0
        for stage, count in enumerate(counts):
            width, layer = 64 * 2**stage, nn.Sequential()
            for i in range(count):
                # The first block's first convolution closes the previous stage, as one more layer of its warehouse.
                before = stage - 1, previous
                if i or (stage == 0 and block is KWBasicBlock):
                    before = stage, i
                names = [f'stage{before[0]}_layer{before[1]}_conv0']
                names += [f'stage{stage}_layer{i}_conv{k}' for k in range(1, block.num_convs)]
                stride, dilation = self._stride_and_dilation(i, strides[stage], dilations[stage], contract_dilation)
                downsample = None
                if stride != 1 or channels != width * block.expansion:
                    downsample = ConvNormAct(
                        conv(warehouse, f'stage{stage - 1}_layer{previous + 1}_conv0', channels,
                             width * block.expansion, 1, stride, dynamic=stage > 0),
                        build_norm_layer(norm_cfg, width * block.expansion)[1])
                module = block(channels, width, stride, dilation, names, warehouse, before[0] >= 0, norm_cfg,
                               drop_path_rate, with_cp)
                module.downsample = downsample
                layer.append(module)
                channels = width * block.expansion
            previous = count
            self.add_module(f'layer{stage + 1}', layer)
        warehouse.allocate(self)
        self._freeze_stages()

    @classmethod
    def sizes(cls) -> list[dict[str, Any]]:
        return [dict(depth=depth, cell_num_ratio=budget, cell_inplane_ratio=cell, cell_outplane_ratio=cell,
                     nonlocal_basis_ratio=basis) for depth, budget, cell, basis in cls.published]
