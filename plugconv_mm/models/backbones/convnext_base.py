"""The frame of a ConvNeXt, around blocks of any kind.

Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.
"""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.ops import LayerNorm2d
from plugconv_mm.ops.mlp import residual_mlp
from plugconv_mm.ops.residual_block import ResidualBlock, drop_path_rates


class ConvNeXtBlock(ResidualBlock):
    """A convolution, and an MLP of what it gives: x + gamma · MLP(LN(conv(x))).

    A subclass makes its convolution and then calls ``_add_mlp`` in its constructor.
    """

    def _add_mlp(self, channels: int, layer_scale_init: float) -> None:
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels, ), layer_scale_init))

    def _mlp(self, x: Tensor, y: Tensor) -> Tensor:
        """Run all that follows the convolution, of the block's input and what the convolution gave."""
        return residual_mlp(x, y, self.norm, self.pwconv1, self.pwconv2, self.gamma, self.drop_path)


class ConvNeXtBackbone(Backbone):
    """Four stages of blocks, behind a 4×4 stem and 2×2 downsampling; each output passes a LayerNorm of its own.

    A subclass calls ``_add_stages`` and then ``_freeze_stages`` in its constructor.
    """

    default_init_cfg = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02)

    def _patch_conv(self, stage: int, in_channels: int, out_channels: int, size: int) -> nn.Module:
        """Make the convolution in front of a stage, whose windows of `size` do not overlap."""
        return nn.Conv2d(in_channels, out_channels, size, stride=size)

    def _add_stages(self, in_channels: int, channels: Sequence[int], depths: Sequence[int], drop_path_rate: float,
                    block: Callable[[int, int, float], nn.Module], gap_before_final_norm: bool) -> None:
        """Make all layers.

        Args:
            in_channels: Channels of the image.
            channels: Width of each stage.
            depths: Blocks of each stage.
            drop_path_rate: Stochastic depth of the last block.
            block: Makes a block, from its stage, its number there and its stochastic depth.
            gap_before_final_norm: Whether each output is averaged over its positions before its LayerNorm, as in
                published classifiers; it is (N, C) then.
        """
        self.gap_before_final_norm = gap_before_final_norm
        self.downsample_layers = nn.ModuleList([
            nn.Sequential(self._patch_conv(0, in_channels, channels[0], 4), LayerNorm2d(channels[0]))])
        for i in range(1, len(depths)):
            self.downsample_layers.append(nn.Sequential(
                LayerNorm2d(channels[i - 1]), self._patch_conv(i, channels[i - 1], channels[i], 2)))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, j, next(rates)) for j in range(depth))) for i, depth in enumerate(depths))
        for i in self.out_indices:
            self.add_module(f'norm{i}', LayerNorm2d(channels[i]))

    def _stem(self, x: Tensor) -> Tensor:
        return self.downsample_layers[0](x)

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        return self.stages[stage - 1](x if stage == 1 else self.downsample_layers[stage - 1](x))

    def _output(self, stage: int, x: Tensor) -> Tensor:
        norm = getattr(self, f'norm{stage - 1}')
        return norm(x.mean((2, 3), keepdim=True)).flatten(1) if self.gap_before_final_norm else norm(x)

    def stage_modules(self, stage: int) -> list[nn.Module]:
        if stage == 0:
            return [self.downsample_layers[0]]
        i = stage - 1
        norm = [getattr(self, f'norm{i}')] if i in self.out_indices else []
        return [self.downsample_layers[i], self.stages[i], *norm]
