"""Sparse R-CNN and QueryInst of mmdet: queries with boxes that change from stage to stage."""
from typing import Any

import torch
from torch import Tensor

from plugconv_mm.export.candidates import without_older_forms
from plugconv_mm.export.queries import best_pairs, stand_in
from plugconv_mm.export.regions import features_of_regions, regions_of
from plugconv_mm.export.suppression import take


def best_regions(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    """Find the boxes of the best queries as ``SparseRoIHead`` of mmdet does, and their masks where it has any.

    Args:
        model: A detector of mmdet with ``EmbeddingRPNHead`` and ``SparseRoIHead``.
        images: (B, C, H, W).

    Returns:
        Boxes with scores (B, K, 5), labels (B, K), and masks (B, K, h, w).
    """
    head, shape, feats = model.roi_head, tuple(images.shape[2:]), model.extract_feat(images)
    start = model.rpn_head.predict(feats, [stand_in(shape)])[0]
    boxes, queries = (part.expand(images.shape[0], -1, -1) for part in (start.bboxes, start.features))
    for stage, bbox_head in enumerate(head.bbox_head):
        rois = regions_of(boxes)
        scores, deltas, queries, attended = bbox_head(_features(head.bbox_roi_extractor[stage], feats, rois), queries)
        with without_older_forms():
            boxes = bbox_head.regress_by_class(rois[:, 1:], scores, deltas.flatten(0, 1), dict(img_shape=shape))
        boxes = boxes.view(-1, *deltas.shape[1:])
    scores = scores.sigmoid() if bbox_head.loss_cls.use_sigmoid else scores.softmax(2)[..., :-1]
    scores, labels, places = best_pairs(scores, head.test_cfg.max_per_img)
    dets = torch.cat((take(boxes, places), scores[..., None]), 2)
    if not head.with_mask:
        return dets, labels
    # mmdet computes masks of all queries and takes those of the best; here as many are computed as are taken.
    attended = take(attended, places)
    features = _features(head.mask_roi_extractor[-1], feats, regions_of(dets[..., :4]))
    masks = head.mask_head[-1](features, attended).sigmoid()
    numbers = labels.flatten()[:, None, None, None].expand(-1, 1, *masks.shape[2:])
    return dets, labels, masks.gather(1, numbers).view(*labels.shape, *masks.shape[2:])


def _features(extractor: Any, feats: tuple[Tensor, ...], rois: Tensor) -> Tensor:
    return features_of_regions(extractor, feats[:extractor.num_inputs], rois)
