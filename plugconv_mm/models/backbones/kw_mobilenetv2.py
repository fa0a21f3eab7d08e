"""KW-MobileNetV2: a MobileNetV2 whose convolutions are mixed from kernel warehouses.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, on
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.
"""
from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import (
    KAIMING_INIT,
    ResidualBlock,
    channels_last_on_cpu,
    drop_path_rates,
    make_divisible,
)
from plugconv_mm.models.backbones.kw_base import KWBackbone, conv
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.ops.mechanisms.batch_norm import conv_bn
from plugconv_mm.registry import MODELS


class ConvBNReLU(nn.Sequential):
    """A convolution, its normalisation and ReLU6."""

    def __init__(self, convolution: nn.Module, norm: nn.Module) -> None:
        super().__init__(convolution, norm, nn.ReLU6(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](conv_bn(self[0], self[1], x))


class InvertedResidual(ResidualBlock):
    """1×1 expansion (unless it is 1), 3×3 depthwise, 1×1 projection, with a residual where shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, name: str,
                 warehouse: KernelWarehouse, dynamic_pointwise: bool, norm_cfg: dict, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__(drop_path, with_cp)
        hidden = in_channels * expansion
        layers = []
        if expansion != 1:
            layers.append(ConvBNReLU(
                conv(warehouse, f'{name}_pwconv0', in_channels, hidden, 1, dynamic=dynamic_pointwise),
                build_norm_layer(norm_cfg, hidden)[1]))
        layers.append(ConvBNReLU(conv(warehouse, f'{name}_dwconv0', hidden, hidden, 3, stride, groups=hidden),
                                 build_norm_layer(norm_cfg, hidden)[1]))
        layers.append(conv(warehouse, f'{name}_pwconv1', hidden, out_channels, 1, dynamic=dynamic_pointwise))
        layers.append(build_norm_layer(norm_cfg, out_channels)[1])
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def _forward(self, x: Tensor) -> Tensor:
        *hidden, projection, norm = self.conv
        y = x
        for layer in hidden:
            y = layer(y)
        y = conv_bn(projection, norm, y)
        return x + self.drop_path(y) if self.residual else y


@MODELS.register_module()
class KWMobileNetV2(KWBackbone):
    """MobileNetV2 with dynamic convolutions of :class:`plugconv_mm.ops.KernelWarehouse`.

    The first block of a stage belongs to the previous stage's warehouses. Left at None, the arguments of the
    warehouses are those of the published network of the budget `cell_num_ratio`:

    - 1/2: pointwise convolutions are dynamic in the last two stages only, and their warehouses alone are halved.
      Expansions and projections have one each, and the hidden layers are half as wide.
    - below 4: all pointwise convolutions of a stage share a warehouse, and all depthwise ones.
    - 4 and above: expansions and projections have a warehouse each.

    Args:
        widen_factor (float): factor on the widths; 1.0 and 0.5 are published.
        in_channels (int): channels of the image.
        cell_num_ratio (float | Sequence[float]): parameter budget b; a sequence gives one for each warehouse, here and
            in the next two.
        cell_inplane_ratio (float | Sequence[float], optional): input channels of a cell relative to the greatest common
            divisor.
        cell_outplane_ratio (float | Sequence[float], optional): output channels of a cell likewise.
        sharing_range (Sequence[str], optional): what loses its number in ``stage{s}_layer{l}_pwconv{k}`` and
            ``stage{s}_layer{l}_dwconv{k}``, the names from which sharing follows.
        nonlocal_basis_ratio (float): below 1, size of the basis for the cells of other layers.
        reduction (float, optional): width of the attentions' hidden layer relative to the input channels, at least 16.
        dynamic_pointwise (Sequence[int], optional): stages, of 1 to 6, whose pointwise convolutions are dynamic; the
            last convolution always is.
        out_indices (Sequence[int]): outputs to return, at strides 4, 8, 16, 32 with 24, 32, 96, 1280 channels.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and all up to output i - 1. Cells that a stage
            that trains draws from go on training.
        norm_cfg (dict, optional): normalisation; BN by default.
        norm_eval (bool): keep batch norms in eval mode while training. Training from scratch needs False.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0.
        with_cp (bool): recompute each block in the backward pass to save memory.
        init_cfg (dict | list[dict], optional): how to initialise the weights; from scratch by default.

    Raises:
        ValueError: Indices or stages that do not exist, or ratios that do not fit the warehouses.

    Shapes:
        (N, in_channels, H, W) -> tuple of (N, C_i, H / 2^(i + 2), W / 2^(i + 2)).

    Example:
        >>> import torch
        >>> backbone = KWMobileNetV2(widen_factor=0.5).eval()
        >>> [tuple(y.shape) for y in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 16, 16, 24), (1, 16, 8, 12), (1, 48, 4, 6), (1, 1280, 2, 3)]
    """

    # expansion, channels, blocks, stride, and the stage to whose warehouses the blocks after the first belong
    settings = ((1, 16, 1, 1, 1), (6, 24, 2, 2, 2), (6, 32, 3, 2, 3), (6, 64, 4, 2, 4), (6, 96, 3, 1, 5),
                (6, 160, 3, 2, 6), (6, 320, 1, 1, 6))
    outputs = (3, 6, 13, 18)  # the modules of ``features`` whose outputs are returned
    # The published network of budget 1/2. Warehouses: stem, depthwise of stages 1 to 5, pointwise 0, depthwise and
    # pointwise 1 of stage 6.
    half = dict(cell_num_ratio=(1, 1, 1, 1, 1, 1, 0.5, 1, 0.5), cell_inplane_ratio=(1, 1, 1, 1, 1, 1, 0.5, 1, 0.5),
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
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1,
                 norm_cfg: dict | None = None,
                 norm_eval: bool = True,
                 drop_path_rate: float = 0.,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        given = dict(cell_inplane_ratio=cell_inplane_ratio, cell_outplane_ratio=cell_outplane_ratio,
                     sharing_range=sharing_range, reduction=reduction, dynamic_pointwise=dynamic_pointwise)
        given = {key: value for key, value in given.items() if value is not None}
        if cell_num_ratio == 0.5:
            kw = self.half | given
        else:
            wide = not isinstance(cell_num_ratio, Sequence) and cell_num_ratio >= 4
            kw = dict(cell_num_ratio=cell_num_ratio, cell_inplane_ratio=1, cell_outplane_ratio=1,
                      sharing_range=('layer', ) if wide else ('layer', 'pwconv'), reduction=1 / 16,
                      dynamic_pointwise=range(1, 7)) | given
        dynamic = set(kw.pop('dynamic_pointwise'))
        if not dynamic <= set(range(1, 7)):
            raise ValueError(f'dynamic_pointwise must be within 1..6, got {sorted(dynamic)}')
        warehouse = KernelWarehouse(nonlocal_basis_ratio=nonlocal_basis_ratio, **kw)
        super().__init__(warehouse, out_indices, frozen_stages, norm_eval, init_cfg or KAIMING_INIT)
        norm_cfg = norm_cfg or dict(type='BN')
        channels = make_divisible(32 * widen_factor)
        last = make_divisible(1280 * max(1., widen_factor))
        features = [ConvBNReLU(conv(warehouse, 'stage0_conv0', in_channels, channels, 3, 2),
                               build_norm_layer(norm_cfg, channels)[1])]
        rates = iter(drop_path_rates(drop_path_rate, sum(s[2] for s in self.settings)))
        layer, before = 0, 1
        for expansion, base, count, stride, stage in self.settings:
            for i in range(count):
                out_channels = make_divisible(base * widen_factor)
                home = before if i == 0 else stage
                features.append(InvertedResidual(
                    channels, out_channels, stride if i == 0 else 1, expansion, f'stage{home}_layer{layer}', warehouse,
                    home in dynamic, norm_cfg, next(rates), with_cp))
                channels = out_channels
                layer = 0 if home != stage else layer + 1
            before = stage
        features.append(ConvBNReLU(conv(warehouse, f'stage{before}_layer{layer}_pwconv1', channels, last, 1),
                                   build_norm_layer(norm_cfg, last)[1]))
        self.features = nn.Sequential(*features)
        warehouse.allocate(self)
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        wanted = [self.outputs[i] for i in self.out_indices]
        x, outs = channels_last_on_cpu(x), []
        for i, module in enumerate(self.features[:max(wanted) + 1]):
            x = module(x)
            if i in wanted:
                outs.append(x)
        return tuple(outs)

    def stage_modules(self, stage: int) -> list[nn.Module]:
        if stage == 0:
            return [self.features[0]]
        first = self.outputs[stage - 2] + 1 if stage > 1 else 1
        return list(self.features[first:self.outputs[stage - 1] + 1])
