"""HorUPerHead: a UPerHead that fuses its pyramid by gnConv.

- Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions", section 3.3,
  https://arxiv.org/abs/2207.14284
- Xiao et al., "Unified Perceptual Parsing for Scene Understanding", https://arxiv.org/abs/1807.10221
"""
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead
from torch import Tensor

from plugconv_mm.errors import ExportError
from plugconv_mm.ops.gnconv import Filter
from plugconv_mm.plugging.convs import HorGnConv2d
from plugconv_mm.registry import MODELS


@MODELS.register_module()
class HorUPerHead(UPerHead):
    """mmseg's UPerHead with gnConv in the place of the 3x3 convolution over the concatenated pyramid.

    That 3x3, from ``len(in_channels) * channels`` to ``channels``, is about half of a UPerHead's cost. Its norm and
    activation stay. ``conv_cfg`` reaches the other convolutions only.

    Args:
        filter: '7x7', a depthwise convolution, or 'k3', 'k31' and the like; 'gf', the global-local filter; or a
            dict, as in :func:`~plugconv_mm.plugging.convs.gnconv_filter`.
        order: Order of the gnConv; ``2 ** (order - 1)`` must divide ``channels``.
        filter_size: (h, w) of the learned spectrum of 'gf'.
        proj_out: Whether the gnConv ends in a 1x1 convolution.
        **kwargs: As in :class:`mmseg.models.decode_heads.UPerHead`: in_channels, in_index, channels, num_classes,
            pool_scales, norm_cfg, act_cfg, align_corners, loss_decode and the rest.

    Raises:
        ValueError: ``2 ** (order - 1)`` does not divide ``channels``, or ``filter`` is unknown.

    Example:
        >>> import torch
        >>> from plugconv_mm.models.decode_heads import HorUPerHead
        >>> head = HorUPerHead(in_channels=[8, 16], in_index=[0, 1], channels=32, num_classes=5)
        >>> head((torch.rand(1, 8, 16, 24), torch.rand(1, 16, 8, 12))).shape
        torch.Size([1, 5, 16, 24])
    """

    def __init__(self, *, filter: Filter = '7x7', order: int = 2, filter_size: tuple[int, int] = (32, 17),
                 proj_out: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        gnconv = dict(type=HorGnConv2d, order=order, filter=filter, filter_size=tuple(filter_size), proj_out=proj_out)
        with warnings.catch_warnings():
            # The published module keeps the bias of its last projection in front of a batch norm.
            warnings.filterwarnings('ignore', 'Unnecessary conv bias')
            self.fpn_bottleneck = ConvModule(
                len(self.in_channels) * self.channels, self.channels, 3, padding=1, bias=True, conv_cfg=gnconv,
                norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pool the last map as a UPerHead does.

        Raises:
            ExportError: If TorchScript's ONNX exporter records it at a size for which that has no operator.
        """
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            height, width = map(int, inputs[-1].shape[2:])
            for scale in self.psp_modules.pool_scales:
                if height % scale or width % scale:
                    raise ExportError(
                        f"TorchScript's ONNX exporter cannot pool the last map, of {height}x{width}, to "
                        f'{scale}x{scale}, which does not divide it: use torch.onnx.export(..., dynamo=True) or '
                        'tools/deploy/export_onnx.py')
        return super().psp_forward(inputs)
