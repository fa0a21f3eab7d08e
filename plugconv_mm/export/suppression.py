"""Non-maximum suppression of a batch, and outputs of one size."""
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

from plugconv_mm.errors import ExportError


def check_nms(cfg: Mapping[str, Any]) -> None:
    """Check that a suppression is the one that is exported.

    Raises:
        ExportError: It is another one, as soft NMS.
    """
    if cfg.get('type', 'nms') != 'nms':
        raise ExportError(f'the suppression of this detector is {cfg["type"]!r}, and plain NMS is what runtimes have: '
                          "set nms.type='nms' in its test_cfg with --cfg-options")


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Mapping[str, Any],
             limit: int) -> tuple[Tensor, Tensor]:
    """Suppress boxes that overlap better ones of their image and group.

    Args:
        boxes: Candidates (B, N, 4).
        scores: Their scores (B, N); those below 0 are no candidates.
        groups: Their classes, or levels (B, N).
        cfg: ``nms`` of a config.
        limit: K, boxes to keep in an image.

    Returns:
        Scores (B, K), sorted, -1 where there are no more boxes; and their places among the N.
    """
    images, n = scores.shape
    if cfg.get('class_agnostic'):
        groups = torch.zeros_like(groups)
    # Groups lie beside one another and images below one another: in one direction, coordinates would become so large
    # that little is left of the boxes in float32.
    boxes = only((scores >= 0)[..., None], boxes, 0)  # others may be infinite
    room = boxes.max() + 1
    number = torch.arange(images, device=boxes.device)[:, None].expand(-1, n)
    shift = torch.stack((groups, number), 2).to(boxes.dtype) * room
    kept = nms((boxes + shift.repeat(1, 1, 2)).flatten(0, 1), scores.flatten(), cfg['iou_threshold'])
    mask = torch.zeros(images * n, device=boxes.device).scatter(0, kept, torch.ones_like(kept, dtype=torch.float32))
    return best(only(mask.view(images, n) > 0, scores), limit)


def best(scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The best scores (B, K) of (B, N), K = `limit`, and their places; -1 at any place where there are no more."""
    n = scores.shape[1]
    if not isinstance(n, int) or n < limit:  # an exporter does not know how many a map of any size has
        scores = torch.nn.functional.pad(scores, (0, limit), value=-1)
    scores, places = scores.topk(limit, dim=1)
    return scores, places.clamp(max=n - 1)


def only(mask: Tensor, values: Tensor, other: int = -1) -> Tensor:
    """The values where a mask is true, and another number where it is not."""
    return torch.where(mask, values, torch.full_like(values, other))


def take(values: Tensor, places: Tensor) -> Tensor:
    """Values (B, N) or (B, N, M) at places (B, K)."""
    return values.gather(1, places if values.dim() == 2 else places[..., None].expand(-1, -1, values.shape[2]))


def detections(boxes: Tensor, scores: Tensor, labels: Tensor, cfg: Mapping[str, Any], limit: int,
               *others: Tensor) -> tuple[Tensor, ...]:
    """Make the outputs of a detector of its candidates.

    Returns:
        Boxes with scores (B, K, 5) and labels (B, K), zeros and -1 where an image has fewer; and what else candidates
        have, (B, N) or (B, N, M), of the same, zeros at the end where there are fewer candidates.
    """
    scores, places = suppress(boxes, scores, labels, cfg, limit)
    is_box = scores >= 0
    dets = torch.cat((take(boxes, places), scores[..., None]), 2)
    return only(is_box[..., None], dets, 0), only(is_box, take(labels, places)), *(
        take(values, places) for values in others)
