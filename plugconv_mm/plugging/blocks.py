"""Residual blocks that take the place of those of a model, as wide as their input."""
from collections.abc import Callable

import torch
from torch import Tensor, nn

from plugconv_mm.ops import GnConv2d, LayerNorm2d
from plugconv_mm.ops.gnconv import Filter
from plugconv_mm.ops.mlp import residual_mlp
from plugconv_mm.ops.residual_block import ResidualBlock
from plugconv_mm.plugging.convs import gnconv_filter


class HorNetBlock(ResidualBlock):
    """Two residual branches: x + gamma1 · gnConv(LN(x)), then x + gamma2 · MLP(LN(x)).

    Paper: HorNet, https://arxiv.org/abs/2207.14284.

    Args:
        channels: Channels in and out, C.
        order: As in :class:`plugconv_mm.ops.GnConv2d`, as is `scale`.
        filter: As :func:`plugconv_mm.plugging.convs.gnconv_filter` takes it.
        filter_size: (h, w) of the complex weight of 'gf'.
        scale: Factor on the filter's output.
        layer_scale_init: Initial value of gamma1 and gamma2.
        drop_path: Stochastic depth.
        with_cp: Whether to recompute the block in the backward pass.

    Shapes:
        (N, C, H, W) -> (N, C, H, W).
    """

    def __init__(self, channels: int, order: int = 3, filter: Filter = '7x7', filter_size: tuple[int, int] = (14, 8),
                 scale: float = 1 / 3, layer_scale_init: float = 1e-6, drop_path: float = 0.,
                 with_cp: bool = False) -> None:
        super().__init__(drop_path, with_cp)
        self.norm1 = LayerNorm2d(channels)
        self.gnconv = GnConv2d(channels, order=order, filter=gnconv_filter(filter), filter_size=filter_size,
                               scale=scale)
        self.gamma1 = nn.Parameter(torch.full((channels, ), layer_scale_init))
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma2 = nn.Parameter(torch.full((channels, ), layer_scale_init))

    def _forward(self, x: Tensor) -> Tensor:
        y = self.gnconv(self.norm1(x))
        x = torch.addcmul(x, self.gamma1[:, None, None], self.drop_path(y))
        return residual_mlp(x, x, self.norm2, self.pwconv1, self.pwconv2, self.gamma2, self.drop_path)


BLOCKS: dict[str, Callable[..., nn.Module]] = {'HorNetBlock': HorNetBlock}
