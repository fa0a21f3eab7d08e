"""Detectors of mmdet as functions from images to boxes, labels, scores and masks, which an exporter can follow."""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export import mask_queries, queries, sparse
from plugconv_mm.export.candidates import dense_candidates, without_older_forms
from plugconv_mm.export.mask_kernels import condinst, rtmdet_ins
from plugconv_mm.export.matrix_nms import check_solo, solov2
from plugconv_mm.export.regions import check_extractor, features_of_regions, regions_of
from plugconv_mm.export.suppression import best, check_nms, detections, only, suppress, take

# Candidates of a two-stage detector that pass its threshold, of all classes, at most; images with more lose the worst.
_MOST = 4096
LIMIT = 100  # boxes of an image where a detector has no limit; COCO AP looks at as many
_DENSE = ('ATSSHead', 'DDODHead', 'FCOSHead', 'FSAFHead', 'FreeAnchorRetinaHead', 'GFLHead', 'RTMDetHead',
          'RTMDetSepBNHead', 'RetinaHead', 'RetinaSepBNHead', 'SSDHead', 'TOODHead', 'VFNetHead', 'YOLOXHead')
_WITH_MASKS = ('RTMDetInsHead', 'RTMDetInsSepBNHead')


@dataclass(frozen=True)
class Detector:
    """A detector as it is exported.

    Attributes:
        names: Names of the outputs.
        detect: The function from the model and images (B, C, H, W) to boxes with scores (B, K, 5), labels (B, K), and
            masks (B, K, h, w) where the model has any.
        masks: What masks are of: 'box' or 'image'.
    """
    names: tuple[str, ...]
    detect: Callable[[Any, Tensor], tuple[Tensor, ...]]
    masks: str = 'box'


def detector_of(model: Any, raw: bool = False) -> Detector:
    """Choose how a detector is exported.

    Args:
        model: The detector.
        raw: Whether the suppression is left out, so that K is the number of all candidates.

    Raises:
        ExportError: It has a head that is not exported, or no suppression that can be left out.
    """
    if raw and not (hasattr(model, 'bbox_head') and type(model.bbox_head).__name__ in _DENSE):
        raise ExportError(f'{type(model).__name__} cannot leave before its suppression: only detectors with one of '
                          f'these heads can: {", ".join(_DENSE)}')
    if hasattr(model, 'roi_head'):
        _check_two_stages(model)
        return Detector(('dets', 'labels', 'masks') if model.roi_head.with_mask else ('dets', 'labels'),
                        sparse.best_regions if _is_sparse(model) else _two_stages)
    if hasattr(model, 'panoptic_head'):
        mask_queries.check_instances(model)
        return Detector(('dets', 'labels', 'masks'), mask_queries.best_masks, 'image')
    if hasattr(model, 'bbox_head') and not hasattr(model, 'mask_head'):
        kind = type(model.bbox_head).__name__
        if kind in queries.HEADS:
            return Detector(('dets', 'labels'), queries.best_queries)
        if kind not in (*_DENSE, *_WITH_MASKS):
            raise ExportError(f'{kind}, the head of {type(model).__name__}, is not exported; those that are: '
                              f'{", ".join((*_DENSE, *_WITH_MASKS, *queries.HEADS))}')
        check_nms(model.bbox_head.test_cfg.nms)
        if kind in _WITH_MASKS:
            return Detector(('dets', 'labels', 'masks'), rtmdet_ins, 'image')
        return Detector(('dets', 'labels'), _candidates if raw else _one_stage)
    kind = type(getattr(model, 'mask_head', None)).__name__
    if kind in ('CondInstMaskHead', 'BoxInstMaskHead'):
        check_nms(model.bbox_head.test_cfg.nms)
        return Detector(('dets', 'labels', 'masks'), condinst, 'image')
    if kind == 'SOLOV2Head':
        check_solo(model.mask_head)
        return Detector(('dets', 'labels', 'masks'), solov2, 'image')
    raise ExportError(f'{type(model).__name__} is not exported whole: only detectors with a dense head, with '
                      'queries, CondInst, SOLOv2, and two-stage ones')


def _is_sparse(model: Any) -> bool:
    return (type(model.rpn_head).__name__, type(model.roi_head).__name__) == ('EmbeddingRPNHead', 'SparseRoIHead')


def _check_two_stages(model: Any) -> None:
    rpn, roi = model.rpn_head, model.roi_head
    if not _is_sparse(model):
        if type(rpn).__name__ != 'RPNHead' or type(roi).__name__ not in ('StandardRoIHead', 'CascadeRoIHead'):
            raise ExportError(f'{type(rpn).__name__} and {type(roi).__name__} of {type(model).__name__} are not '
                              'exported; RPNHead with StandardRoIHead or CascadeRoIHead is, and EmbeddingRPNHead with '
                              'SparseRoIHead')
        check_nms(rpn.test_cfg.nms)
        check_nms(roi.test_cfg.nms)
    for kind in ('bbox', 'mask') if roi.with_mask else ('bbox', ):
        for stage in range(_stages(roi)):
            check_extractor(_part(roi, f'{kind}_roi_extractor', stage))


def _one_stage(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    head = model.bbox_head
    boxes, scores, labels = dense_candidates(head, model.extract_feat(images), tuple(images.shape[2:]))
    return detections(boxes, scores, labels, head.test_cfg.nms, head.test_cfg.get('max_per_img', LIMIT))


def _candidates(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    boxes, scores, labels = dense_candidates(model.bbox_head, model.extract_feat(images), tuple(images.shape[2:]))
    return torch.cat((boxes, scores[..., None]), 2), labels


def _two_stages(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    head, shape = model.roi_head, tuple(images.shape[2:])
    feats = model.extract_feat(images)
    scores, boxes = _classified(head, feats, proposals(model.rpn_head, feats, shape), shape)
    dets, labels = best_of_classes(boxes, scores, head.test_cfg)
    if not head.with_mask:
        return dets, labels
    rois, stages = regions_of(dets[..., :4]), _stages(head)
    masks = sum(_run(head, 'mask', stage, feats, rois).sigmoid() for stage in range(stages)) / stages
    if masks.shape[1] > 1:
        places = labels.flatten().clamp(min=0)[:, None, None, None].expand(-1, 1, *masks.shape[2:])
        masks = masks.gather(1, places)
    return dets, labels, masks.view(*labels.shape, *masks.shape[2:])


def _classified(head: Any, feats: Any, boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scores (B, P, C) and boxes (B, P, C · 4) or (B, P, 4) of proposals (B, P, 4)."""
    rois, total, stages = regions_of(boxes), torch.zeros(()), _stages(head)
    for stage in range(stages):
        bbox_head = _part(head, 'bbox_head', stage)
        cls_score, bbox_pred = _run(head, 'bbox', stage, feats, rois)
        total = total + cls_score
        if stage < stages - 1:
            labels = cls_score[:, :-1].argmax(1)
            with without_older_forms():
                refined = bbox_head.regress_by_class(rois[:, 1:], labels, bbox_pred, dict(img_shape=shape))
            rois = torch.cat((rois[:, :1], refined), 1)
    classes = 1 if bbox_head.reg_class_agnostic else bbox_head.num_classes
    with without_older_forms():
        decoded = bbox_head.bbox_coder.decode(rois[:, 1:].repeat_interleave(classes, dim=0), bbox_pred.view(-1, 4),
                                              max_shape=shape)
    scores = (total / stages).softmax(1)[:, :-1]
    return scores.view(*boxes.shape[:2], -1), decoded.view(*boxes.shape[:2], -1)


def _stages(head: Any) -> int:
    """Number of the heads that come one after the other: 1 but in cascades."""
    return getattr(head, 'num_stages', 1)


def _part(head: Any, name: str, stage: int) -> Any:
    part = getattr(head, name)
    return part[stage] if isinstance(part, nn.ModuleList) else part


def _run(head: Any, kind: str, stage: int, feats: Any, rois: Tensor) -> Any:
    """The outputs of the head of boxes, ``'bbox'``, or of masks, ``'mask'``, of a stage."""
    extractor = _part(head, f'{kind}_roi_extractor', stage)
    features = features_of_regions(extractor, feats[:extractor.num_inputs], rois)
    return _part(head, f'{kind}_head', stage)(head.shared_head(features) if head.with_shared_head else features)


def proposals(head: Any, feats: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    """The boxes (B, P, 4) that ``RPNHead`` of mmdet proposes; empty ones where there are fewer."""
    cfg = head.test_cfg
    cls_scores, bbox_preds = head(feats)
    priors = head.prior_generator.grid_priors([score.shape[-2:] for score in cls_scores], dtype=feats[0].dtype,
                                              device=feats[0].device)
    boxes, scores, levels = [], [], []
    for level, (cls_score, bbox_pred, prior) in enumerate(zip(cls_scores, bbox_preds, priors, strict=True)):
        images, most = cls_score.shape[0], prior.shape[0]
        cls_score = cls_score.permute(0, 2, 3, 1).reshape(images, most, head.cls_out_channels)
        score = cls_score.sigmoid()[..., 0] if head.use_sigmoid_cls else cls_score.softmax(2)[..., 0]
        bbox_pred = bbox_pred.permute(0, 2, 3, 1).reshape(images, most, 4)
        prior = prior[None].expand(images, -1, -1)
        if cfg.get('nms_pre', -1) > 0 and (not isinstance(most, int) or cfg.nms_pre < most):
            score, places = best(score, cfg.nms_pre)
            bbox_pred, prior = take(bbox_pred, places), take(prior, places)
        with without_older_forms():
            box = head.bbox_coder.decode(prior.flatten(0, 1), bbox_pred.flatten(0, 1), max_shape=shape)
        boxes.append(box.view(images, -1, 4))
        scores.append(score)
        levels.append(torch.full_like(score, level, dtype=torch.long))
    box, score = torch.cat(boxes, 1), torch.cat(scores, 1)
    least = cfg.get('min_bbox_size', -1)
    if least >= 0:
        score = only((box[..., 2:] - box[..., :2] > least).all(2), score)
    score, places = suppress(box, score, torch.cat(levels, 1), cfg.nms, cfg.max_per_img)
    return only((score >= 0)[..., None], take(box, places), 0)


def best_of_classes(boxes: Tensor, scores: Tensor, cfg: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Make the outputs of a detector of scores (B, P, C) and boxes (B, P, C · 4) or (B, P, 4)."""
    images, number, classes = scores.shape
    flat = scores.flatten(1)
    score, places = best(only(flat > cfg['score_thr'], flat), min(_MOST, number * classes))
    box = take(boxes, places // classes) if boxes.shape[2] == 4 else take(boxes.view(images, -1, 4), places)
    # What is no proposal has no side.
    score = only((box[..., 2:] > box[..., :2]).any(2), score)
    return detections(box, score, places % classes, cfg['nms'], cfg['max_per_img'])
