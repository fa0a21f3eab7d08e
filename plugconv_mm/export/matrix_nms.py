"""SOLOv2 (Wang et al., NeurIPS 2020), whose masks have no boxes: its candidates and its matrix NMS, of fixed sizes."""
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plugconv_mm.errors import ExportError
from plugconv_mm.export.suppression import best, only, take


def check_solo(head: Any) -> None:
    """Check that SOLOv2's head is one that is exported.

    Raises:
        ExportError: Its kernels are larger than one pixel, its suppression has another decay, or all masks of an image
            go into the suppression.
    """
    if head.test_cfg.kernel not in ('gaussian', 'linear'):
        raise ExportError(f"the kernel of SOLOv2's test_cfg is 'gaussian' or 'linear', got {head.test_cfg.kernel!r}")
    if head.dynamic_conv_size != 1:
        raise ExportError(f'SOLOv2 is exported with dynamic_conv_size=1, got {head.dynamic_conv_size}')
    for key in ('nms_pre', 'max_per_img'):
        if head.test_cfg[key] < 1:
            raise ExportError(f'SOLOv2 is exported with a number of masks, and {key} of its test_cfg is '
                              f'{head.test_cfg[key]}: set one with --cfg-options')


def solov2(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    """Detect as mmdet's ``SOLOV2Head``: boxes of zeros with scores, as mmdet's, labels, and masks (B, K, h, w).

    Of the pairs of a position and a class, the best ``nms_pre`` by the score of the class go on.
    """
    head = model.mask_head
    cfg = head.test_cfg
    kernels, cls_scores, feat = head(model.extract_feat(images))
    head.predict_by_feat(kernels, cls_scores, feat, [])  # puts local maxima into the list of scores
    scores = torch.cat([maxima.flatten(1, 2) for maxima in cls_scores], 1)
    scores, places = scores.flatten(1).topk(min(cfg.nms_pre, scores[0].numel()), dim=1)
    labels, positions = places % head.cls_out_channels, places // head.cls_out_channels
    kernel = take(torch.cat([map.flatten(2).transpose(1, 2) for map in kernels], 1), positions)
    masks = (kernel @ feat.flatten(2)).sigmoid()
    inside = (masks > cfg.mask_thr).to(masks.dtype)
    areas = inside.sum(2)
    sides = torch.cat([scores.new_full((number**2, ), stride)
                       for number, stride in zip(head.num_grids, head.strides, strict=True)])
    is_mask = (scores > cfg.score_thr) & (areas > sides[positions])
    scores = only(is_mask, scores * (masks * inside).sum(2) / areas.clamp(min=1))

    scores, order = scores.topk(scores.shape[1], dim=1)
    labels, inside, masks = take(labels, order), take(inside, order), take(masks, order)
    scores = scores * decay(inside, labels, cfg)
    scores, places = best(only(scores >= max(cfg.filter_thr, 0), scores), cfg.max_per_img)
    is_mask = scores >= 0
    labels = only(is_mask, take(labels, places))
    dets = torch.cat((torch.zeros_like(scores)[..., None].expand(-1, -1, 4), only(is_mask, scores, 0)[..., None]), 2)
    return dets, labels, take(masks, places).unflatten(2, feat.shape[2:])


def decay(masks: Tensor, labels: Tensor, cfg: Mapping[str, Any]) -> Tensor:
    """Find how much masks lose to better ones of their class.

    Args:
        masks: Zeros and ones (B, N, P), the best mask first.
        labels: Their classes (B, N).
        cfg: ``kernel`` and ``sigma`` of the config.

    Returns:
        Factors of the scores (B, N).
    """
    common = masks @ masks.transpose(1, 2)
    areas = masks.sum(2)
    iou = common / (areas[:, :, None] + areas[:, None] - common).clamp(min=1)
    iou = (iou * (labels[:, :, None] == labels[:, None])).triu(diagonal=1)
    most = iou.amax(1)[..., None]  # of each mask with those that are better than it
    if cfg['kernel'] == 'gaussian':
        return (cfg['sigma'] * (most**2 - iou**2)).exp().amin(1)
    return ((1 - iou) / (1 - most)).amin(1)
