"""ParC-ConvNeXt: a ConvNeXt whose last blocks convolve globally.

- A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

In a ParC block depthwise ParC-H on one half of the channels and ParC-W on the other stand in for the 7x7 depthwise
convolution; everything else is a ConvNeXt.
"""
from collections.abc import Sequence

import numpy as np
import torch
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import Backbone, look_up_arch
from plugconv_mm.ops import LayerNorm2d, ParCHW2d
from plugconv_mm.registry import MODELS


class Block(nn.Module):
    """x + gamma MLP(LN(dwconv(x))), with a 7x7 or, where ``meta_size`` is given, a ParC as ``dwconv``."""

    def __init__(self, channels: int, meta_size: int | None, parc_backend: str, layer_scale_init: float,
                 drop_path: float, with_cp: bool) -> None:
        super().__init__()
        if meta_size is None:
            self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        else:
            self.dwconv = ParCHW2d(channels, meta_size, backend=parc_backend)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels, ), layer_scale_init))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.with_cp = with_cp

    def _forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.act(self.pwconv1(y))).permute(0, 3, 1, 2)
        return torch.addcmul(x, self.gamma[:, None, None], self.drop_path(y))

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


@MODELS.register_module()
class ParCConvNeXt(Backbone):
    """ConvNeXt with ParC in the last blocks of its stages.

    Args:
        arch (str | dict): ``'xt'``, ``'tiny'``, or a dict with the keys ``channels`` and ``depths``, per stage.
        parc_blocks (Sequence[int]): how many of the last blocks of each stage are ParC. All zeros make a plain
            ConvNeXt.
        parc_backend (str): backend of every ParC, see :func:`plugconv_mm.ops.parc_conv2d`.
        in_channels (int): channels of the image.
        out_indices (Sequence[int]): stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        layer_scale_init (float): initial value of gamma.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_eval (bool): keep batch norms in eval mode while training; ParC-ConvNeXt itself has none.
        with_cp (bool): recompute each block in the backward pass to save memory.
        init_cfg (dict | list[dict], optional): how to initialise the weights.

    Shapes:
        (N, in_channels, H, W), sides of at least 32, -> tuple of (N, channels[i], H // 2^(i + 2), W // 2^(i + 2)).

    Raises:
        ValueError: an unknown arch, or ``parc_blocks`` of a wrong length or beyond a stage's depth.

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
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 layer_scale_init: float = 1e-6,
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        channels, depths = arch['channels'], arch['depths']
        if len(parc_blocks) != len(depths) or any(not 0 <= n <= d for n, d in zip(parc_blocks, depths, strict=True)):
            raise ValueError(f'parc_blocks gives how many of the last blocks of each stage are ParC, of {depths} '
                             f'blocks; got {tuple(parc_blocks)}')
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
                Block(channels[i], self.meta_sizes[i] if j >= depth - parc_blocks[i] else None, parc_backend,
                      layer_scale_init, rates.pop(0), with_cp) for j in range(depth))))
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
        modules = [self.downsample_layers[i], self.stages[i]]
        return modules + ([getattr(self, f'norm{i}')] if i in self.out_indices else [])
