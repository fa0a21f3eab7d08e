"""KW-ConvNeXt: a ConvNeXt whose convolutions are mixed from kernel warehouses.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, on
Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import look_up_arch
from plugconv_mm.models.backbones.kw_base import KWBackbone
from plugconv_mm.ops import KernelWarehouse, KWConv2d, KWLinear, LayerNorm2d
from plugconv_mm.registry import MODELS


def _pointwise(layer: KWLinear, x: Tensor) -> Tensor:
    """The layer over the channels of a map (N, C, H, W) that is channels-last in memory, as is the result."""
    weights = layer.kernels(x.mean((2, 3)))[:, :, 0, 0]
    samples = zip(x.permute(0, 2, 3, 1).split(1), weights, strict=True)
    return torch.cat([F.linear(sample, weight, layer.bias) for sample, weight in samples]).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + gamma · MLP(LN(7×7 depthwise(x)))."""

    def __init__(self, channels: int, name: str, warehouse: KernelWarehouse, layer_scale_init: float, drop_path: float,
                 with_cp: bool) -> None:
        super().__init__()
        self.dwconv = KWConv2d(channels, channels, 7, padding=3, groups=channels, warehouse=warehouse,
                               name=f'{name}_dwconv0')
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = KWLinear(channels, 4 * channels, warehouse=warehouse, name=f'{name}_pwconv1')
        self.act = nn.GELU()
        self.pwconv2 = KWLinear(4 * channels, channels, warehouse=warehouse, name=f'{name}_pwconv2')
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), layer_scale_init))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.with_cp = with_cp

    def _forward(self, x: Tensor) -> Tensor:
        y = self.act(_pointwise(self.pwconv1, self.norm(self.dwconv(x))))
        return x + self.drop_path(self.gamma * _pointwise(self.pwconv2, y))

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


@MODELS.register_module()
class KWConvNeXt(KWBackbone):
    """ConvNeXt with dynamic convolutions of :class:`plugconv_mm.ops.KernelWarehouse`.

    By default each stage has two warehouses, one for its depthwise and one for its pointwise convolutions; the stem and
    each downsampling convolution have their own. Published: ``'tiny'`` with `cell_num_ratio` 1.

    Args:
        arch (str | dict): ``'tiny'``, or a dict with the keys ``depths`` and ``channels``, per stage.
        in_channels (int): channels of the image.
        cell_num_ratio (float | Sequence[float]): parameter budget b; a sequence gives one for each warehouse, here and
            in the next two.
        cell_inplane_ratio (float | Sequence[float]): input channels of a cell relative to the greatest common divisor.
        cell_outplane_ratio (float | Sequence[float]): output channels of a cell likewise.
        sharing_range (Sequence[str]): what loses its number in ``stage{s}_layer{l}_dwconv0`` and
            ``stage{s}_layer{l}_pwconv{k}``, the names from which sharing follows.
        nonlocal_basis_ratio (float): below 1, size of the basis for the cells of other layers.
        reduction (float): width of the attentions' hidden layer relative to the input channels, at least 16.
        out_indices (Sequence[int]): stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        layer_scale_init (float): initial value of gamma.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages. Cells that a stage
            that trains draws from go on training.
        norm_eval (bool): keep batch norms in eval mode while training; there are none.
        with_cp (bool): recompute each block in the backward pass to save memory.
        init_cfg (dict | list[dict], optional): how to initialise the weights; from scratch by default.

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
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        channels, depths = arch['channels'], arch['depths']
        warehouse = KernelWarehouse(cell_num_ratio, cell_inplane_ratio, cell_outplane_ratio, sharing_range,
                                    nonlocal_basis_ratio, reduction, norm_layer=nn.LayerNorm)
        super().__init__(warehouse, out_indices, frozen_stages, norm_eval, init_cfg)
        self.downsample_layers = nn.ModuleList([nn.Sequential(
            KWConv2d(in_channels, channels[0], 4, stride=4, warehouse=warehouse, name='stem_conv0'),
            LayerNorm2d(channels[0]))])
        for i in range(3):
            self.downsample_layers.append(nn.Sequential(
                LayerNorm2d(channels[i]),
                KWConv2d(channels[i], channels[i + 1], 2, stride=2, warehouse=warehouse,
                         name=f'downsample{i}_conv0')))
        rates = torch.linspace(0, drop_path_rate, sum(depths)).tolist()
        self.stages = nn.ModuleList(nn.Sequential(*(
            Block(channels[i], f'stage{i}_layer{j}', warehouse, layer_scale_init, rates.pop(0), with_cp)
            for j in range(depths[i]))) for i in range(4))
        for i in self.out_indices:
            self.add_module(f'norm{i}', LayerNorm2d(channels[i]))
        warehouse.allocate(self)
        for m in self.modules():
            if isinstance(m, nn.Linear):  # of the attentions
                nn.init.trunc_normal_(m.weight, std=0.02)
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        for i in range(max(self.out_indices) + 1):
            x = self.stages[i](self.downsample_layers[i](x))
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x))
        return tuple(outs)

    def stage_modules(self, stage: int) -> list[nn.Module]:
        if stage == 0:
            return [self.downsample_layers[0]]
        i = stage - 1
        norm = [getattr(self, f'norm{i}')] if i in self.out_indices else []
        return [self.downsample_layers[i], self.stages[i], *norm]
