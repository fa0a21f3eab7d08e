"""The functions of mmcv's compiled module ``mmcv._ext``, on torchvision and PyTorch.

This package takes the place of the compiled module. Each function takes what mmcv's Python side hands to the compiled
one (same names, same order, results written into the tensors handed in) and computes what mmcv's kernels compute, so
that nothing above this package notices a difference. float32 and float64 are computed as they come; float16 and
bfloat16 are computed in float32 and rounded once. Tensors may lie on any device.

Served is everything that the configs of mmdet and mmseg reach, and mmrotate's rotated boxes and RoIs, one file for
each group of operators. ``nms``, ``roi_align`` (averages) and the deformable convolutions are torchvision's kernels;
the others are PyTorch. Any other name answers ``hasattr``, for mmcv asks so when it is imported, and raises
:class:`OperatorNotBridgedError` when it is called.
"""
from collections.abc import Callable
from typing import Any, NoReturn

import torchvision

from plugconv_mm.compat.mmcv_ops.boxes import bbox_overlaps
from plugconv_mm.compat.mmcv_ops.carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from plugconv_mm.compat.mmcv_ops.deform_attention import ms_deform_attn_backward, ms_deform_attn_forward
from plugconv_mm.compat.mmcv_ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from plugconv_mm.compat.mmcv_ops.deform_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from plugconv_mm.compat.mmcv_ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from plugconv_mm.compat.mmcv_ops.masked_conv import masked_col2im_forward, masked_im2col_forward
from plugconv_mm.compat.mmcv_ops.psa_mask import psamask_backward, psamask_forward
from plugconv_mm.compat.mmcv_ops.roi_align import roi_align_backward, roi_align_forward
from plugconv_mm.compat.mmcv_ops.roi_align_rotated import roi_align_rotated_backward, roi_align_rotated_forward
from plugconv_mm.compat.mmcv_ops.roi_pool import roi_pool_backward, roi_pool_forward
from plugconv_mm.compat.mmcv_ops.rotated_boxes import box_iou_rotated, nms_rotated
from plugconv_mm.compat.mmcv_ops.suppression import line_nms_forward, nms, nms_match, softnms
from plugconv_mm.compat.mmcv_ops.sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)
from plugconv_mm.compat.packages import mmcv_build_help

__all__ = [
    'OperatorNotBridgedError', 'bbox_overlaps', 'box_iou_rotated', 'carafe_backward', 'carafe_forward',
    'carafe_naive_backward', 'carafe_naive_forward', 'deform_conv_backward_input', 'deform_conv_backward_parameters',
    'deform_conv_forward', 'deform_roi_pool_backward', 'deform_roi_pool_forward', 'get_compiler_version',
    'get_compiling_cuda_version', 'line_nms_forward', 'masked_col2im_forward', 'masked_im2col_forward',
    'modulated_deform_conv_backward', 'modulated_deform_conv_forward', 'ms_deform_attn_backward',
    'ms_deform_attn_forward', 'nms', 'nms_match', 'nms_rotated', 'psamask_backward', 'psamask_forward',
    'roi_align_backward', 'roi_align_forward', 'roi_align_rotated_backward', 'roi_align_rotated_forward',
    'roi_pool_backward', 'roi_pool_forward', 'sigmoid_focal_loss_backward', 'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward', 'softmax_focal_loss_forward', 'softnms', 'sync_bn_backward_data',
    'sync_bn_backward_param', 'sync_bn_forward_mean', 'sync_bn_forward_output', 'sync_bn_forward_var'
]


class OperatorNotBridgedError(NotImplementedError):
    """An operator of mmcv was called that exists only in its compiled form."""

    def __init__(self, operator: str) -> None:
        super().__init__(f"mmcv's compiled operator '{operator}' is not available: mmcv's compiled operators are "
                         f'absent here, and PlugConv-MM replaces only those that mmdet, mmseg and the rotated boxes '
                         f'of mmrotate need. {mmcv_build_help()}')


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def not_bridged(*args: Any, **kwargs: Any) -> NoReturn:
        raise OperatorNotBridgedError(name)

    not_bridged.__name__ = not_bridged.__qualname__ = name
    return not_bridged


def get_compiler_version() -> str:
    """Name torchvision's version, where mmcv would name its compiler."""
    return f'not compiled (torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """Return mmcv's own answer of a build without CUDA."""
    return 'not available'
