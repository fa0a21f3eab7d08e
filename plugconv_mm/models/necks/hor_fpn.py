"""HorFPN: a feature pyramid whose output convolutions are gnConv modules.

Paper: Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions", section 3.3,
https://arxiv.org/abs/2207.14284.
"""
import warnings
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN
from torch import Tensor

from plugconv_mm.ops.gnconv import Filter
from plugconv_mm.plugging.convs import HorGnConv2d
from plugconv_mm.registry import MODELS


@MODELS.register_module()
class HorFPN(FPN):
    """mmdet's FPN with gnConv in the place of its 3x3 output convolutions.

    It takes every argument of :class:`mmdet.models.necks.FPN` and drops into any detector that takes an FPN. The
    convolutions after the top-down sums become :class:`~plugconv_mm.ops.GnConv2d`, ``out_channels`` wide, followed by
    ``norm_cfg`` and ``act_cfg`` as an mmcv ConvModule would have them (none by default). The lateral 1x1 convolutions
    and the stride-2 convolutions of extra levels stay what they are, and ``conv_cfg`` reaches only these.

    Args:
        in_channels: Channels of the backbone's outputs.
        out_channels: Channels of each output; ``2 ** (order - 1)`` must divide it.
        num_outs: Number of outputs.
        filter: '7x7', a depthwise convolution, or 'k3', 'k31' and the like; 'gf', the global-local filter; or a
            dict, as in :func:`~plugconv_mm.plugging.convs.gnconv_filter`.
        order: Order of the gnConv.
        filter_size: (h, w) of the learned spectrum of 'gf'.
        proj_out: Whether the gnConv ends in a 1x1 convolution.
        norm_cfg: Normalization of laterals, outputs and extra levels.
        act_cfg: Activation of laterals, outputs and extra levels.
        **kwargs: As in FPN: start_level, end_level, add_extra_convs, relu_before_extra_convs, no_norm_on_lateral,
            conv_cfg, upsample_cfg, init_cfg.

    Raises:
        ValueError: If ``2 ** (order - 1)`` does not divide ``out_channels``, ``filter`` is unknown, or another number
            of maps comes than ``in_channels`` names.

    Example:
        >>> import torch
        >>> from plugconv_mm.models.necks import HorFPN
        >>> neck = HorFPN(in_channels=[8, 16], out_channels=32, num_outs=3)
        >>> [tuple(out.shape) for out in neck((torch.rand(1, 8, 16, 24), torch.rand(1, 16, 8, 12)))]
        [(1, 32, 16, 24), (1, 32, 8, 12), (1, 32, 4, 6)]
    """

    def __init__(self, *args: Any, filter: Filter = '7x7', order: int = 2, filter_size: tuple[int, int] = (32, 17),
                 proj_out: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gnconv = dict(type=HorGnConv2d, order=order, filter=filter, filter_size=tuple(filter_size), proj_out=proj_out)
        for i in range(self.backbone_end_level - self.start_level):
            replaced = self.fpn_convs[i]
            with warnings.catch_warnings():
                # The published module keeps the bias of its last projection in front of a batch norm, too.
                warnings.filterwarnings('ignore', 'Unnecessary conv bias')
                self.fpn_convs[i] = ConvModule(
                    self.out_channels, self.out_channels, 3, padding=1, bias=True, conv_cfg=gnconv,
                    norm_cfg=replaced.norm_cfg, act_cfg=replaced.act_cfg, inplace=False)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'expected {len(self.in_channels)} maps, of {self.in_channels} channels, got '
                             f'{len(inputs)}: let in_channels name those that the backbone returns (its out_indices)')
        return super().forward(inputs)
