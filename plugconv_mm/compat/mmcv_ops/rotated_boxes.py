"""Rotated boxes (x, y, width, height, angle in radians): ``box_iou_rotated`` and ``nms_rotated``."""
import numpy as np
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype

_PAIRS_AT_ONCE = 2**15
_BOXES_AT_ONCE = 128
_NO_AREA = 1e-14


def _clipped_means(start: Tensor, end: Tensor, limit: Tensor) -> Tensor:
    """Average a value over its way from ``start`` to ``end`` on a line, clipped to ``limit`` on both sides of 0."""
    first, last = (torch.minimum(torch.maximum(value, -limit), limit) for value in (start, end))
    way = (end - start).where(end != start, 1)
    # Up to `enter` the clipped value rests at its first, from `leave` on at its last.
    enter, leave = ((value - start) / way for value in (first, last))
    enter, leave = enter.clamp(0, 1), leave.clamp(0, 1)
    return enter * first + (leave - enter) * (first + last) / 2 + (1 - leave) * last


def _intersections(first: Tensor, second: Tensor) -> Tensor:
    """Compute the areas that pairs of boxes, both (P, 5), have in common.

    Seen along the second box, the common area is the integral over its width of the first box's vertical section,
    clipped to its height; the section is the difference of the edges above and below. So each edge of the first box
    contributes on its own, and no case needs to be told from another, however edges touch or coincide.
    """
    offset, turn = first[:, :2] - second[:, :2], first[:, 4] - second[:, 4]
    cos, sin = second[:, 4].cos(), second[:, 4].sin()
    center = torch.stack((offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin), dim=1)
    along = torch.stack((turn.cos(), turn.sin()), dim=1) * first[:, 2:3] / 2
    across = torch.stack((-turn.sin(), turn.cos()), dim=1) * first[:, 3:4] / 2
    # (P, 4, 2), around the box
    start = torch.stack([center + a * along + b * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))], dim=1)
    half_width, half_height = second[:, 2:3].abs() / 2, second[:, 3:4].abs() / 2

    x0, y0 = start.unbind(-1)
    x1, y1 = start.roll(-1, dims=1).unbind(-1)
    left, right = (torch.minimum(torch.maximum(x, -half_width), half_width) for x in (x0, x1))
    run = (x1 - x0).where(x1 != x0, 1)
    at_left, at_right = (y0 + (y1 - y0) * ((x - x0) / run).clamp(0, 1) for x in (left, right))
    area = (right - left) * _clipped_means(at_left, at_right, half_height)
    return area.sum(dim=1).abs()


def _pair_ious(first: Tensor, second: Tensor, by_first: bool = False) -> Tensor:
    """Compute the IoU of pairs of boxes, both (P, 5), or with ``by_first`` the share of the first; 0 without area."""
    result = first.new_zeros(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        common = _intersections(first[part], second[part])
        area1, area2 = (boxes[part, 2] * boxes[part, 3] for boxes in (first, second))
        nothing = (area1 < _NO_AREA) | (area2 < _NO_AREA)
        result[part] = (common / (area1 if by_first else area1 + area2 - common)).masked_fill(nothing, 0)
    return result


def _ious(first: Tensor, second: Tensor, by_first: bool = False, least: float = 0) -> Tensor:
    """Compute the IoU of each box with each: (M, N).

    Boxes whose circles do not meet are passed over, and with ``least`` those whose areas differ too much for an IoU as
    high as that.
    """
    result = first.new_zeros(len(first), len(second))
    step = max(1, 64 * _PAIRS_AT_ONCE // max(len(second), 1))
    for start in range(0, len(first), step):
        part = first[start:start + step]
        reach = part[:, None, 2:4].norm(dim=-1) + second[:, 2:4].norm(dim=-1)
        near = (part[:, None, :2] - second[:, :2]).norm(dim=-1) <= reach / 2
        if least > 0:
            area1, area2 = part[:, None, 2] * part[:, None, 3], second[:, 2] * second[:, 3]
            near &= torch.minimum(area1, area2) >= (least - 1e-5) * torch.maximum(area1, area2)
        rows, columns = near.nonzero(as_tuple=True)
        result[start + rows, columns] = _pair_ious(part[rows], second[columns], by_first)
    return result


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Write the IoU (``mode_flag`` 0), or the intersection over the first box (1), into ``ious``.

    ``ious`` is (M * N, ), or (M, ) of the pairs of a row each if ``aligned``. Angles count clockwise in the image.
    """
    check_shape('box_iou_rotated', 'boxes1', boxes1, (None, 5))
    check_shape('box_iou_rotated', 'boxes2', boxes2, (boxes1.size(0) if aligned else None, 5))
    if mode_flag not in (0, 1):
        raise ValueError(f'box_iou_rotated: mode_flag must be 0 (iou) or 1 (iof), got {mode_flag}')
    dtype = compute_dtype('box_iou_rotated', boxes1=boxes1, boxes2=boxes2)
    result = (_pair_ious if aligned else _ious)(boxes1.to(dtype), boxes2.to(dtype), mode_flag == 1)
    ious.copy_(result.view(ious.shape))


def nms_rotated(dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, labels: Tensor,
                iou_threshold: float, multi_label: int) -> Tensor:
    """Return the indices of the kept rotated boxes, by falling score.

    ``dets`` is (N, 5), or (N, 6) with a label behind each box, which mmcv's kernels do not look at: boxes of several
    classes must lie apart. They suppress an IoU equal to the threshold on the CPU and keep it on a GPU, and so does
    this.
    """
    check_shape('nms_rotated', 'dets', dets, (None, 6 if multi_label else 5))
    check_shape('nms_rotated', 'scores', scores, (dets.size(0), ))
    boxes = dets_sorted[:, :5].to(compute_dtype('nms_rotated', dets=dets, scores=scores))
    threshold, on_cpu = float(np.float32(iou_threshold)), dets.device.type == 'cpu'
    kept, rest = [order[:0]], order
    while len(rest):
        # The best boxes that are left decide among themselves, then those that stay decide on all others.
        best, boxes_of_best = rest[:_BOXES_AT_ONCE], boxes[:_BOXES_AT_ONCE]
        iou = _ious(boxes_of_best, boxes, least=threshold)
        over = iou >= threshold if on_cpu else iou > threshold
        among = over[:, :len(best)].cpu().numpy()
        stays = np.ones(len(best), dtype=bool)
        for i in range(len(best)):
            if stays[i]:
                stays[i + 1:] &= ~among[i, i + 1:]
        stay = torch.from_numpy(stays).to(order.device)
        kept.append(best[stay])
        others = ~over[stay, len(best):].any(dim=0)
        rest, boxes = rest[len(best):][others], boxes[len(best):][others]
    return torch.cat(kept)
