"""Instances of MaskFormer and Mask2Former of mmdet, whose queries are masks."""
from typing import Any

import torch
from torch import Tensor

from plugconv_mm.errors import ExportError
from plugconv_mm.export.queries import best_pairs, stand_in
from plugconv_mm.export.suppression import only, take
from plugconv_mm.export.tracing import one_for_each


def check_instances(model: Any) -> None:
    """Check that a detector with queries for masks gives instances.

    Raises:
        ExportError: It has other heads, or gives a panoptic map only.
    """
    kinds = type(model.panoptic_head).__name__, type(model.panoptic_fusion_head).__name__
    if kinds[0] not in ('Mask2FormerHead', 'MaskFormerHead') or kinds[1] != 'MaskFormerFusionHead':
        raise ExportError(f'{kinds[0]} and {kinds[1]} of {type(model).__name__} are not exported; Mask2FormerHead and '
                          'MaskFormerHead with MaskFormerFusionHead are')
    if not model.panoptic_fusion_head.test_cfg.get('instance_on', False):
        raise ExportError('instances are what is exported of this detector, and it gives a panoptic map only: set '
                          'model.test_cfg.instance_on=True with --cfg-options')


def best_masks(model: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the instances of the best queries, as ``MaskFormerFusionHead`` of mmdet does for one image.

    Args:
        model: A ``MaskFormer`` or ``Mask2Former`` of mmdet.
        images: (B, C, H, W).

    Returns:
        Boxes with scores (B, K, 5), labels (B, K), and probabilities of masks (B, K, H, W); zeros and -1 stand for
        what is no thing.
    """
    head = model.panoptic_fusion_head
    samples = one_for_each(stand_in(tuple(images.shape[2:])), images)
    classes, masks = model.panoptic_head.predict(model.extract_feat(images), samples)
    scores, labels, places = best_pairs(classes.softmax(2)[..., :-1], head.test_cfg.get('max_per_image', 100))
    probabilities = _taken(masks, places).sigmoid()
    inside = (probabilities > 0.5).to(masks.dtype)
    quality = (probabilities * inside).flatten(2).sum(2) / (inside.flatten(2).sum(2) + 1e-6)
    scores, order = only(labels < head.num_things_classes, scores * quality).sort(1, descending=True)
    is_thing = scores >= 0
    dets = torch.cat((take(_boxes(inside), order), scores[..., None]), 2)
    return (only(is_thing[..., None], dets, 0), only(is_thing, take(labels, order)),
            only(is_thing[..., None, None], _taken(probabilities, order), 0))


def _taken(masks: Tensor, places: Tensor) -> Tensor:
    """Masks (B, Q, H, W) at places (B, K)."""
    return take(masks.flatten(2), places).unflatten(2, masks.shape[2:])


def _boxes(inside: Tensor) -> Tensor:
    """The boxes (B, K, 4) around masks (B, K, H, W) of zeros and ones; zeros around none."""
    ends = []
    for rows in (inside.amax(2), inside.amax(3)):  # what is in each column, and in each row
        number = torch.arange(1, rows.shape[2] + 1, device=rows.device).to(rows.dtype)
        last = (rows * number).amax(2)
        first = rows.shape[2] - (rows * number.flip(0)).amax(2)
        ends.append((first * (last > 0), last))
    return torch.stack((ends[0][0], ends[1][0], ends[0][1], ends[1][1]), 2)
