"""HorNet.

Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
https://arxiv.org/abs/2207.14284.
"""
from collections.abc import Sequence

import numpy as np
import torch
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import Backbone, look_up_arch
from plugconv_mm.ops import GnConv2d, LayerNorm2d
from plugconv_mm.registry import MODELS


class Block(nn.Module):
    """x + gamma1 gnConv(LN(x)), then x + gamma2 MLP(LN(x))."""

    def __init__(self, channels: int, order: int, filter: str, filter_size: tuple[int, int], scale: float,
                 layer_scale_init: float, drop_path: float, with_cp: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.gnconv = GnConv2d(channels, order=order, filter=filter, filter_size=filter_size, scale=scale)
        self.gamma1 = nn.Parameter(torch.full((channels, ), layer_scale_init))
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma2 = nn.Parameter(torch.full((channels, ), layer_scale_init))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.with_cp = with_cp

    def _forward(self, x: Tensor) -> Tensor:
        y = self.gnconv(self.norm1(x))
        x = torch.addcmul(x, self.gamma1[:, None, None], self.drop_path(y))
        y = self.norm2(x.permute(0, 2, 3, 1))
        y = self.pwconv2(self.act(self.pwconv1(y))).permute(0, 3, 1, 2)
        return torch.addcmul(x, self.gamma2[:, None, None], self.drop_path(y))

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


def _settings(base_width: int, filter: str, sizes: list[tuple[int, int]]) -> dict:
    return dict(
        channels=[base_width * 2**i for i in range(4)],
        depths=[2, 3, 18, 2],
        orders=[2, 3, 4, 5],
        filters=['7x7', '7x7', filter, filter],
        filter_sizes=sizes)


@MODELS.register_module()
class HorNet(Backbone):
    """HorNet: a ConvNeXt whose 7x7 convolutions are gnConv modules of orders 2, 3, 4, 5.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'`` or ``'large'`` followed by ``'-7x7'``, ``'-gf'`` (the
            global-local filter in the last two stages, for images of 224 pixels) or ``'-gf-img384'`` (its weights
            sized for 384 pixels); or a dict with the keys ``channels``, ``depths``, ``orders`` and ``filters``
            (``'7x7'`` or ``'gf'``) and ``filter_sizes`` ((h, w) of the complex weight of ``'gf'``), all per stage.
        in_channels (int): channels of the image.
        out_indices (Sequence[int]): stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        scale (float): factor on the output of the filters.
        layer_scale_init (float): initial value of gamma1 and gamma2.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval (bool): keep batch norms in eval mode while training; HorNet itself has none.
        with_cp (bool): recompute each block in the backward pass to save memory.
        init_cfg (dict | list[dict], optional): how to initialise the weights.

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
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        channels, depths = arch['channels'], arch['depths']
        super().__init__(
            len(depths), out_indices, frozen_stages, norm_eval, init_cfg
            or dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02))
        rates = np.linspace(0, drop_path_rate, sum(depths)).tolist()
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for i, depth in enumerate(depths):
            if i == 0:
                downsample = nn.Sequential(
                    nn.Conv2d(in_channels, channels[0], 4, stride=4), LayerNorm2d(channels[0]))
            else:
                downsample = nn.Sequential(
                    LayerNorm2d(channels[i - 1]), nn.Conv2d(channels[i - 1], channels[i], 2, stride=2))
            self.downsample_layers.append(downsample)
            self.stages.append(nn.Sequential(*(
                Block(channels[i], arch['orders'][i], arch['filters'][i], arch['filter_sizes'][i], scale,
                      layer_scale_init, rates.pop(0), with_cp) for _ in range(depth))))
            if i in self.out_indices:
                self.add_module(f'norm{i}', LayerNorm2d(channels[i]))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        for i, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(downsample(x))
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x))
        return tuple(outs)

    def stage_modules(self, stage: int) -> list[nn.Module]:
        if stage == 0:
            return [self.downsample_layers[0]]
        i = stage - 1
        return [self.downsample_layers[i], self.stages[i]] + ([getattr(self, f'norm{i}')] if i in self.out_indices
                                                              else [])
