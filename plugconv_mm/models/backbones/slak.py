"""SLaK.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
https://arxiv.org/abs/2207.03620.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as cp
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import Backbone, look_up_arch
from plugconv_mm.ops import DecomposedLargeKernelConv2d, LayerNorm2d
from plugconv_mm.registry import MODELS


class Block(nn.Module):
    """x + gamma · MLP(LN(large kernel(x)))."""

    # Positions that go through the MLP at a time in inference on a CPU, so that its hidden layer stays in the cache.
    strip = 2048

    def __init__(self, channels: int, kernel_size: int, small_kernel: int, norm_cfg: dict, layer_scale_init: float,
                 drop_path: float, with_cp: bool) -> None:
        super().__init__()
        self.large_kernel = DecomposedLargeKernelConv2d(
            channels, kernel_size, small_kernel, norm_layer=lambda c: build_norm_layer(norm_cfg, c)[1])
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels, ), layer_scale_init))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.with_cp = with_cp

    def _mlp(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = self.act(F.conv2d(self.norm(x), self.pwconv1.weight[:, :, None, None], self.pwconv1.bias))
        return F.conv2d(x, weight[:, :, None, None], bias)

    def _strips_pay(self, x: Tensor) -> bool:
        return (x.device.type == 'cpu' and not self.training and not torch.is_grad_enabled()
                and not torch.is_autocast_enabled('cpu') and not torch.compiler.is_compiling()
                and not torch.jit.is_tracing())

    def _forward(self, x: Tensor) -> Tensor:
        y = self.large_kernel(x)
        # gamma scales the weights: cheaper than scaling the map.
        weight, bias = self.pwconv2.weight * self.gamma[:, None], self.pwconv2.bias * self.gamma
        if not self._strips_pay(x):
            return x + self.drop_path(self._mlp(y, weight, bias))
        rows = max(self.strip // y.shape[3], 1)
        for sample, shortcut in zip(y.split(1), x.split(1), strict=True):
            for part, rest in zip(sample.split(rows, 2), shortcut.split(rows, 2), strict=True):
                torch.add(rest, self._mlp(part, weight, bias), out=part)
        return y

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


@MODELS.register_module()
class SLaK(Backbone):
    """SLaK: a ConvNeXt with depthwise kernels of up to 51×51, each decomposed into 51×5, 5×51 and 5×5.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'`` or ``'base'``, or a dict with the keys ``depths`` and ``channels``,
            per stage, before `width_factor`.
        in_channels (int): channels of the image.
        kernel_size (Sequence[int]): M of each stage, odd. A fifth entry, as in the published commands, stands for
            `small_kernel`.
        small_kernel (int): short side of the kernels and size of the small one, odd.
        width_factor (float): factor on the widths, which are truncated to integers.
        out_indices (Sequence[int]): stages to return, at strides 4, 8, 16, 32; each passes a LayerNorm of its own.
        layer_scale_init (float): initial value of gamma.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages.
        norm_cfg (dict, optional): normalisation of the large kernels' branches; BN by default.
        norm_eval (bool): keep batch norms in eval mode while training.
        with_cp (bool): recompute each block in the backward pass to save memory.
        deploy (bool): build the deployed form, into which a deployed checkpoint loads. There,
            ``large_kernel.vertical.{weight,bias}`` and ``large_kernel.horizontal.{weight,bias}``, of shapes
            (C, 1, M, s), (C), (C, 1, s, M), (C), take the place of
            ``large_kernel.{vertical,horizontal,small_conv}.{conv,bn}.*`` in each block.
        init_cfg (dict | list[dict], optional): how to initialise the weights.

    Raises:
        ValueError: An unknown arch, an even kernel size or a wrong number of them, or indices that do not exist.

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
                 small_kernel: int = 5,
                 width_factor: float = 1.3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 layer_scale_init: float = 1e-6,
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 norm_cfg: dict | None = None,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 deploy: bool = False,
                 init_cfg: dict | list[dict] | None = None) -> None:
        arch = look_up_arch(arch, self.arch_settings)
        depths = arch['depths']
        channels = [int(c * width_factor) for c in arch['channels']]
        sizes = tuple(kernel_size)
        if len(sizes) == len(depths) + 1:
            *sizes, small_kernel = sizes
        if len(sizes) != len(depths):
            raise ValueError(f'kernel_size gives one size for each of the {len(depths)} stages, and perhaps the small '
                             f'one, got {tuple(kernel_size)}')
        super().__init__(
            len(depths), out_indices, frozen_stages, norm_eval, init_cfg
            or dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02))
        norm_cfg = norm_cfg or dict(type='BN')
        rates = torch.linspace(0, drop_path_rate, sum(depths)).tolist()
        self.downsample_layers = nn.ModuleList([nn.Sequential(
            nn.Conv2d(in_channels, channels[0], 4, stride=4), LayerNorm2d(channels[0]))])
        for i in range(1, len(depths)):
            self.downsample_layers.append(nn.Sequential(
                LayerNorm2d(channels[i - 1]), nn.Conv2d(channels[i - 1], channels[i], 2, stride=2)))
        self.stages = nn.ModuleList(nn.Sequential(*(
            Block(channels[i], sizes[i], small_kernel, norm_cfg, layer_scale_init, rates.pop(0), with_cp)
            for _ in range(depth))) for i, depth in enumerate(depths))
        for i in self.out_indices:
            self.add_module(f'norm{i}', LayerNorm2d(channels[i]))
        if deploy:
            self.switch_to_deploy()
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
