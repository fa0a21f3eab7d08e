"""Overlaps of axis-aligned boxes: ``bbox_overlaps``."""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write the IoU (mode 0), or the intersection over the first box (mode 1), into ``ious``.

    ``ious`` is (M, N), or (M, ) of the pairs of a row each if ``aligned``. A box measures ``x2 - x1 + offset``.
    """
    check_shape('bbox_overlaps', 'bboxes1', bboxes1, (None, 4))
    check_shape('bbox_overlaps', 'bboxes2', bboxes2, (bboxes1.size(0) if aligned else None, 4))
    if mode not in (0, 1):
        raise ValueError(f'bbox_overlaps: mode must be 0 (iou) or 1 (iof), got {mode}')
    dtype = compute_dtype('bbox_overlaps', bboxes1=bboxes1, bboxes2=bboxes2)
    first, second = bboxes1.to(dtype), bboxes2.to(dtype)
    if not aligned:
        first = first[:, None]
    extent = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + offset
    overlap = extent.clamp(min=0).prod(dim=-1)
    area1, area2 = ((boxes[..., 2:] - boxes[..., :2] + offset).prod(dim=-1) for boxes in (first, second))
    ious.copy_(overlap / (area1 + area2 - overlap if mode == 0 else area1))
