"""Non-maximum suppression of axis-aligned boxes and of lanes: ``nms``, ``softnms``, ``nms_match``, ``line_nms``."""
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes, by falling score. A box measures ``x2 - x1 + offset`` (0 or 1)."""
    check_shape('nms', 'boxes', boxes, (None, 4))
    check_shape('nms', 'scores', scores, (boxes.size(0), ))
    dtype = compute_dtype('nms', boxes=boxes, scores=scores)
    boxes = boxes.to(dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # mmcv holds the threshold as a C float; an IoU equal to it must stay on the same side here.
    return torch.ops.torchvision.nms(boxes, scores.to(dtype), float(np.float32(iou_threshold)))


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017) on the CPU; method 0 is plain NMS, 1 the linear and 2 the Gaussian decay.

    Writes the boxes with their decayed scores into the first rows of ``dets`` (N, 5) and returns the indices of these
    rows. Two boxes without area do not overlap; elsewhere the arithmetic and the order follow mmcv's.
    """
    check_shape('softnms', 'boxes', boxes, (None, 4))
    check_shape('softnms', 'scores', scores, (boxes.size(0), ))
    check_shape('softnms', 'dets', dets, (boxes.size(0), 5))
    if method not in (0, 1, 2):
        raise ValueError(f'softnms: method must be 0 (naive), 1 (linear) or 2 (gaussian), got {method}')
    dtype = compute_dtype('softnms', boxes=boxes, scores=scores)
    rows = torch.cat((boxes.to(dtype), scores.to(dtype)[:, None]), dim=1).cpu().numpy()
    real = rows.dtype.type
    iou_threshold, sigma, min_score = (real(np.float32(value)) for value in (iou_threshold, sigma, min_score))
    areas = (rows[:, 2] - rows[:, 0] + offset) * (rows[:, 3] - rows[:, 1] + offset)
    order = np.arange(len(rows))

    count, i = len(rows), 0
    while i < count:
        best = i + int(rows[i:count, 4].argmax())
        for array in (rows, areas, order):
            array[[i, best]] = array[[best, i]]
        rest = slice(i + 1, count)
        iou = _overlaps(rows[i], rows[rest], areas[i], areas[rest], offset)
        if method == 2:
            weight = np.exp(-(iou * iou) / sigma)
        else:
            weight = np.where(iou >= iou_threshold, 1 - iou if method == 1 else real(0), real(1))
        rows[rest, 4] *= weight

        # A box whose score fell too low gives its place to the last one that is still in.
        keep = rows[rest, 4] >= min_score
        kept = int(keep.sum())
        holes = i + 1 + np.flatnonzero(~keep[:kept])
        fillers = i + 1 + kept + np.flatnonzero(keep[kept:])[::-1]
        for array in (rows, areas, order):
            array[holes] = array[fillers]
        count = i + 1 + kept
        i += 1

    dets[:count] = torch.from_numpy(rows[:count]).to(dets)
    return torch.from_numpy(order[:count].copy())


def _overlaps(box: np.ndarray, others: np.ndarray, area: np.floating, areas: np.ndarray, offset: int) -> np.ndarray:
    """Compute the IoU of one box with each of the others; two boxes without area have 0."""
    extent = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2]) + offset
    overlap = extent.clip(min=0).prod(axis=1)
    union = area + areas - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union != 0)


def _groups(scores: Tensor, suppressed: Callable[[int, np.ndarray], np.ndarray],
            most: int | None = None) -> list[np.ndarray]:
    """Collect the groups of greedy suppression: each kept index, and behind it those that it suppresses, by score.

    ``suppressed(i, rest)`` tells which of the indices ``rest`` the kept index ``i`` suppresses.
    """
    rest = scores.sort(descending=True).indices.cpu().numpy()
    groups: list[np.ndarray] = []
    while len(rest) and len(groups) != most:
        kept, rest = rest[0], rest[1:]
        gone = suppressed(kept, rest)
        groups.append(np.concatenate(([kept], rest[gone])))
        rest = rest[~gone]
    return groups


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes with scores (N, 5) by NMS, as PISA (Cao et al., CVPR 2020) ranks them.

    Returns:
        For each kept box, by falling score, its index followed by the indices of the boxes it suppresses.
    """
    check_shape('nms_match', 'dets', dets, (None, 5))
    rows = dets.to(compute_dtype('nms_match', dets=dets)).cpu().numpy()
    areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    threshold = np.float32(iou_threshold)
    groups = _groups(dets[:, 4], lambda i, rest: _overlaps(rows[i], rows[rest], areas[i], areas[rest], 0) >= threshold)
    return [group.tolist() for group in groups]


def line_nms_forward(boxes: Tensor, scores: Tensor, thresh: float, top_k: int) -> list[Tensor]:
    """NMS of lanes (CLRNet, Zheng et al., CVPR 2022) by their mean distance over the rows that both have.

    A row of ``boxes`` (N, 5 + rows) holds two class scores, the start (0 to 1, of all rows), x, the length in rows,
    and x in pixels at each row. A lane nearer to a better one than ``thresh`` pixels is suppressed. (The CUDA kernel of
    onedl-mmcv 2.3.6 reads the better lane at its rank in place of its index, which is right for sorted lanes alone.)

    Returns:
        The indices of the kept lanes, at most ``top_k`` and 0 behind them (N, ); how many they are; and for each lane
        the number, from 1, of the kept lane that it is or belongs to, else 0 (N, ).
    """
    check_shape('line_nms', 'boxes', boxes, (None, None))
    check_shape('line_nms', 'scores', scores, (boxes.size(0), ))
    lanes = boxes.to(compute_dtype('line_nms', boxes=boxes, scores=scores)).cpu().numpy()
    points = lanes[:, 5:]
    last = points.shape[1] - 1
    starts = (lanes[:, 2] * last + .5).astype(np.int64)
    ends = np.minimum(starts + lanes[:, 4].astype(np.int64) - 1, last)
    row = np.arange(last + 1)

    def suppressed(i: int, rest: np.ndarray) -> np.ndarray:
        start, end = np.maximum(starts[i], starts[rest]), np.minimum(ends[i], ends[rest])
        shared = (row >= start[:, None]) & (row <= end[:, None])
        distance = np.where(shared, np.abs(points[i] - points[rest]), 0).sum(axis=1)
        return (end >= start) & (start >= 0) & (distance < np.float32(thresh) * (end - start + 1))

    groups = _groups(scores, suppressed, most=top_k)
    keep, parent = torch.zeros((2, len(lanes)), dtype=torch.int64, device='cpu')
    for number, group in enumerate(groups, start=1):
        keep[number - 1] = int(group[0])
        parent[torch.from_numpy(group)] = number
    return [tensor.to(boxes.device) for tensor in (keep, torch.tensor(len(groups), device='cpu'), parent)]
