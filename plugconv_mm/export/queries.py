"""Detectors of mmdet whose queries are boxes: DETR and what follows it."""
from typing import Any

import torch
from torch import Tensor

from plugconv_mm.compat.replaced import replaced
from plugconv_mm.export.suppression import take

HEADS = ('ConditionalDETRHead', 'DABDETRHead', 'DETRHead', 'DINOHead', 'DeformableDETRHead')


def best_queries(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Find the boxes of the best queries, without any suppression, as ``DETRHead`` of mmdet does for one image.

    One sample stands for all images, which have the same size and no padding; mmdet's loop over images comes last, and
    is left out.

    Args:
        model: A ``DetectionTransformer`` of mmdet with one of ``HEADS``.
        images: (B, C, H, W).

    Returns:
        Boxes with scores (B, K, 5) and labels (B, K).
    """
    head, shape = model.bbox_head, tuple(images.shape[2:])
    samples = [stand_in(shape)]
    inputs = model.forward_transformer(model.extract_feat(images), samples)
    with replaced([(head, 'predict_by_feat', lambda scores, boxes, **_: _best(head, scores[-1], boxes[-1], shape))]):
        return head.predict(**inputs, batch_data_samples=samples, rescale=False)


def stand_in(shape: tuple[int, int]) -> Any:
    """A sample of mmdet for images that fill the batch."""
    from mmdet.structures import DetDataSample
    return DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape))


def _best(head: Any, scores: Tensor, boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
    limit = head.test_cfg.get('max_per_img', scores.shape[1])
    if head.loss_cls.use_sigmoid:
        scores, labels, places = best_pairs(scores.sigmoid(), limit)
    else:
        scores, labels = scores.softmax(2)[..., :-1].max(2)
        scores, places = scores.topk(limit, dim=1)
        labels = take(labels, places)
    height, width = shape
    size = boxes.new_tensor((width, height, width, height))
    boxes = (bbox_cxcywh_to_xyxy(take(boxes, places)) * size).clamp(min=0).minimum(size)
    return torch.cat((boxes, scores[..., None]), 2), labels


def best_pairs(scores: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the best pairs of a query and a class.

    Args:
        scores: (B, Q, C).
        limit: K, their number.

    Returns:
        Scores, sorted, labels, and numbers of the queries, each (B, K).
    """
    classes = scores.shape[2]
    scores, places = scores.flatten(1).topk(limit, dim=1)
    return scores, places % classes, places // classes
