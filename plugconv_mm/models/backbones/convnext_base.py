"""The frame of a ConvNeXt, around blocks of any kind.

Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.
"""
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from plugconv_mm.models.backbones.base import Backbone, drop_path_rates
from plugconv_mm.ops import LayerNorm2d


class ConvNeXtBackbone(Backbone):
    """Four stages of blocks, behind a 4×4 stem and 2×2 downsampling; each output passes a LayerNorm of its own.

    A subclass calls ``_add_stages`` and then ``_freeze_stages`` in its constructor.

    Args:
        out_indices (Sequence[int]): stages to return.
        frozen_stages (int): as in :class:`Backbone`.
        norm_eval (bool): as in :class:`Backbone`.
        init_cfg (dict | list[dict], optional): by default truncated normals of deviation 0.02.
    """

    def __init__(self, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg
                         or dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02))

    def _patch_conv(self, stage: int, in_channels: int, out_channels: int, size: int) -> nn.Module:
        """The convolution in front of a stage, whose windows of `size` do not overlap."""
        return nn.Conv2d(in_channels, out_channels, size, stride=size)

    def _add_stages(self, in_channels: int, channels: Sequence[int], depths: Sequence[int], drop_path_rate: float,
                    block: Callable[[int, int, float], nn.Module]) -> None:
        """Make all layers.

        Args:
            in_channels: Channels of the image.
            channels: Width of each stage.
            depths: Blocks of each stage.
            drop_path_rate: Stochastic depth of the last block.
            block: Makes a block, from its stage, its number there and its stochastic depth.
        """
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
