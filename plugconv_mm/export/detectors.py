"""Detectors of mmdet as modules from images to boxes, labels, scores and masks, which an exporter can follow."""
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.candidates import dense_candidates, without_older_forms
from plugconv_mm.export.regions import check_extractor, features_of_regions, regions_of
from plugconv_mm.export.suppression import check_nms, detections, suppress, take

# Candidates of a two-stage detector that pass its threshold, of all classes, at most; images with more lose the worst.
_MOST = 4096
_LIMIT = 100  # boxes of an image where a detector has no limit; COCO AP looks at as many
_DENSE = ('ATSSHead', 'FCOSHead', 'FSAFHead', 'FreeAnchorRetinaHead', 'GFLHead', 'RTMDetHead', 'RTMDetSepBNHead',
          'RetinaHead', 'RetinaSepBNHead', 'SSDHead', 'YOLOXHead')


def detector_of(model: Any) -> nn.Module:
    """Make the module of a detector.

    Raises:
        ExportError: It has a head that is not exported.
    """
    if hasattr(model, 'roi_head'):
        return TwoStage(model)
    if hasattr(model, 'bbox_head') and not hasattr(model, 'mask_head'):
        return SingleStage(model)
    raise ExportError(f'{type(model).__name__} is not exported whole: only detectors with a dense head, and two-stage '
                      'ones')


class SingleStage(nn.Module):
    """A detector with a dense head: images (B, C, H, W) -> boxes with scores (B, K, 5) and labels (B, K)."""
    names = ('dets', 'labels')

    def __init__(self, model: Any) -> None:
        super().__init__()
        kind = type(model.bbox_head).__name__
        if kind not in _DENSE:
            raise ExportError(f'{kind}, the head of {type(model).__name__}, is not exported; those that are: '
                              f'{", ".join(_DENSE)}')
        check_nms(model.bbox_head.test_cfg.nms)
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head = self.model.bbox_head
        boxes, scores, labels = dense_candidates(head, self.model.extract_feat(images), tuple(images.shape[2:]))
        return detections(boxes, scores, labels, head.test_cfg.nms,
                          head.test_cfg.get('max_per_img', _LIMIT))


class TwoStage(nn.Module):
    """A detector with proposals: as :class:`SingleStage`, and masks (B, K, h, w) of their boxes where it has any."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        rpn, roi = model.rpn_head, model.roi_head
        if type(rpn).__name__ != 'RPNHead' or type(roi).__name__ not in ('StandardRoIHead', 'CascadeRoIHead'):
            raise ExportError(f'{type(rpn).__name__} and {type(roi).__name__} of {type(model).__name__} are not '
                              'exported; RPNHead with StandardRoIHead or CascadeRoIHead is')
        check_nms(rpn.test_cfg.nms)
        check_nms(roi.test_cfg.nms)
        self.cascade = type(roi).__name__ == 'CascadeRoIHead'
        for part in ('bbox_roi_extractor', 'mask_roi_extractor'):
            extractors = getattr(roi, part, None)
            for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
                if extractor is not None:
                    check_extractor(extractor)
        self.model = model
        self.names = ('dets', 'labels', 'masks') if roi.with_mask else ('dets', 'labels')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        model, shape = self.model, tuple(images.shape[2:])
        feats = model.extract_feat(images)
        boxes = proposals(model.rpn_head, feats, shape)
        head = model.roi_head
        scores, boxes = (self._cascade if self.cascade else self._standard)(feats, boxes, shape)
        dets, labels = best_of_classes(boxes, scores, head.test_cfg)
        if not head.with_mask:
            return dets, labels
        rois = regions_of(dets[..., :4])
        if self.cascade:
            masks = sum(_mask_head(head, i, feats, rois).sigmoid() for i in range(head.num_stages)) / head.num_stages
        else:
            masks = _mask_head(head, None, feats, rois).sigmoid()
        if masks.shape[1] > 1:
            places = labels.flatten().clamp(min=0)[:, None, None, None].expand(-1, 1, *masks.shape[2:])
            masks = masks.gather(1, places)
        return dets, labels, masks.view(*labels.shape, *masks.shape[2:])

    def _standard(self, feats: Any, boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Scores (B, P, C) and boxes (B, P, C · 4) or (B, P, 4) of proposals (B, P, 4)."""
        head = self.model.roi_head
        rois = regions_of(boxes)
        cls_score, bbox_pred = _bbox_head(head, None, feats, rois)
        return _scores(cls_score, boxes), _decode(head.bbox_head, rois, bbox_pred, shape, boxes)

    def _cascade(self, feats: Any, boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        head = self.model.roi_head
        rois, total = regions_of(boxes), torch.zeros(())
        for stage in range(head.num_stages):
            bbox_head = head.bbox_head[stage]
            cls_score, bbox_pred = _bbox_head(head, stage, feats, rois)
            total = total + cls_score
            if stage < head.num_stages - 1:
                best = cls_score[:, :-1].argmax(1)
                with without_older_forms():
                    refined = bbox_head.regress_by_class(rois[:, 1:], best, bbox_pred, dict(img_shape=shape))
                rois = torch.cat((rois[:, :1], refined), 1)
        return _scores(total / head.num_stages, boxes), _decode(bbox_head, rois, bbox_pred, shape, boxes)


def proposals(head: Any, feats: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    """The boxes (B, P, 4) that ``RPNHead`` of mmdet proposes; empty ones where there are fewer."""
    cfg = head.test_cfg
    cls_scores, bbox_preds = head(feats)
    priors = head.prior_generator.grid_priors([score.shape[-2:] for score in cls_scores], dtype=feats[0].dtype,
                                              device=feats[0].device)
    boxes, scores, levels = [], [], []
    for level, (cls_score, bbox_pred, prior) in enumerate(zip(cls_scores, bbox_preds, priors, strict=True)):
        images = cls_score.shape[0]
        cls_score = cls_score.permute(0, 2, 3, 1).reshape(images, len(prior), head.cls_out_channels)
        score = cls_score.sigmoid()[..., 0] if head.use_sigmoid_cls else cls_score.softmax(2)[..., 0]
        bbox_pred = bbox_pred.permute(0, 2, 3, 1).reshape(images, len(prior), 4)
        prior = prior[None].expand(images, -1, -1)
        if 0 < cfg.get('nms_pre', -1) < score.shape[1]:
            score, places = score.topk(cfg.nms_pre, dim=1)
            bbox_pred, prior = take(bbox_pred, places), take(prior, places)
        with without_older_forms():
            box = head.bbox_coder.decode(prior.flatten(0, 1), bbox_pred.flatten(0, 1), max_shape=shape)
        boxes.append(box.view(images, -1, 4))
        scores.append(score)
        levels.append(torch.full_like(score, level, dtype=torch.long))
    box, score = torch.cat(boxes, 1), torch.cat(scores, 1)
    least = cfg.get('min_bbox_size', -1)
    if least >= 0:
        score = torch.where((box[..., 2:] - box[..., :2] > least).all(2), score, -torch.ones_like(score))
    score, places = suppress(box, score, torch.cat(levels, 1), cfg.nms, cfg.max_per_img)
    box = take(box, places)
    return torch.where((score >= 0)[..., None], box, torch.zeros_like(box))


def best_of_classes(boxes: Tensor, scores: Tensor, cfg: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Make the outputs of a detector of scores (B, P, C) and boxes (B, P, C · 4) or (B, P, 4)."""
    images, number, classes = scores.shape
    flat = scores.flatten(1)
    flat = torch.where(flat > cfg['score_thr'], flat, -torch.ones_like(flat))
    best, places = flat.topk(min(_MOST, number * classes), dim=1)
    box = take(boxes, places // classes) if boxes.shape[2] == 4 else take(boxes.view(images, -1, 4), places)
    # What is no proposal has no side.
    best = torch.where((box[..., 2:] > box[..., :2]).any(2), best, -torch.ones_like(best))
    return detections(box, best, places % classes, cfg['nms'], cfg['max_per_img'])


def _bbox_head(head: Any, stage: int | None, feats: Any, rois: Tensor) -> tuple[Tensor, Tensor]:
    extractor = head.bbox_roi_extractor if stage is None else head.bbox_roi_extractor[stage]
    module = head.bbox_head if stage is None else head.bbox_head[stage]
    features = features_of_regions(extractor, feats[:extractor.num_inputs], rois)
    return module(head.shared_head(features) if head.with_shared_head else features)


def _mask_head(head: Any, stage: int | None, feats: Any, rois: Tensor) -> Tensor:
    extractor = head.mask_roi_extractor if stage is None else head.mask_roi_extractor[stage]
    module = head.mask_head if stage is None else head.mask_head[stage]
    features = features_of_regions(extractor, feats[:extractor.num_inputs], rois)
    return module(head.shared_head(features) if head.with_shared_head else features)


def _scores(cls_score: Tensor, boxes: Tensor) -> Tensor:
    return cls_score.softmax(1)[:, :-1].view(*boxes.shape[:2], -1)


def _decode(bbox_head: Any, rois: Tensor, bbox_pred: Tensor, shape: tuple[int, int], boxes: Tensor) -> Tensor:
    classes = 1 if bbox_head.reg_class_agnostic else bbox_head.num_classes
    with without_older_forms():
        decoded = bbox_head.bbox_coder.decode(rois[:, 1:].repeat_interleave(classes, dim=0), bbox_pred.view(-1, 4),
                                              max_shape=shape)
    return decoded.view(*boxes.shape[:2], -1)
