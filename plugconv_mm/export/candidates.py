"""Candidates of dense heads, of numbers that do not depend on what is in the images.

Heads of mmdet choose the candidates of an image among the positions of its maps: those above a score, at most so many
of each map. Here each map gives as many as it may, and those that would have been left out have a score of -1.
"""
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.compat.replaced import Place, replaced
from plugconv_mm.export.suppression import best, only

Candidates = tuple[Tensor, Tensor, Tensor]  # boxes (B, N, 4), scores (B, N), labels (B, N)


def dense_candidates(head: nn.Module, feats: tuple[Tensor, ...], shape: tuple[int, int]) -> Candidates:
    """Find the candidates of a batch with mmdet's own code for the candidates of one image.

    The maps of all images are laid below one another, as one map of one image; the choice among the candidates alone
    has to know of the images. Results are kept apart from ``InstanceData``, whose checks of lengths would make the
    number of images a constant.

    Args:
        head: A dense head whose ``predict_by_feat`` is that of mmdet's ``BaseDenseHead``, or of ``YOLOXHead``.
        feats: Its inputs.
        shape: Height and width of the images, to which boxes are clipped.

    Returns:
        Boxes, scores and labels.
    """
    images = feats[0].shape[0]
    with _anchors_of(head, images):
        outs = tuple(head(feats))
    is_yolox = type(head).__name__ == 'YOLOXHead'
    priors = head.prior_generator.grid_priors([out.shape[-2:] for out in outs[0]], dtype=feats[0].dtype,
                                              device=feats[0].device, **(dict(with_stride=True) if is_yolox else {}))
    if is_yolox:
        return _yolox_candidates(head, outs, torch.cat(priors))
    cls_scores, bbox_preds, factors = (*map(below, outs), [None] * len(priors))[:3]
    return choose_candidates(head, images, '_bbox_post_process', (), cls_score_list=cls_scores,
                             bbox_pred_list=bbox_preds, score_factor_list=factors,
                             mlvl_priors=of_all_images(priors, images), img_meta=dict(img_shape=shape))


def choose_candidates(head: nn.Module, images: int, after: str, others: tuple[str, ...], **inputs: Any
                      ) -> tuple[Tensor, ...]:
    """Run ``_predict_by_feat_single`` of a head up to the suppression, for all images at once.

    Args:
        head: The head.
        images: B.
        after: The method that follows the choice of candidates.
        others: What the results have for each candidate besides box, score and label.
        **inputs: Arguments, as of one image.

    Returns:
        Boxes, scores, labels and others, by image.
    """
    choice = _Choice(images, others)
    places = [(head, after, choice.candidates), *in_modules('filter_scores_and_topk', choice.choose),
              *in_modules('InstanceData', SimpleNamespace)]
    with replaced(places), without_older_forms(), _copied_project(head):
        return head._predict_by_feat_single(**inputs, cfg=head.test_cfg)


def below(maps: Iterable[Tensor]) -> list[Tensor]:
    """Maps (B, C, H, W) of each level, those of all images below one another: (C, B · H, W)."""
    return [map.transpose(0, 1).flatten(1, 2) for map in maps]


def of_all_images(priors: Iterable[Tensor], images: int) -> list[Tensor]:
    """Priors (N, M) of each level, as often as there are images."""
    return [prior.repeat(images, 1) for prior in priors]


def _yolox_candidates(head: nn.Module, outs: tuple, priors: Tensor) -> Candidates:
    """Candidates of YOLOX: all positions, each with its best class."""
    cls_scores, boxes, objectness = (torch.cat([map.flatten(2).transpose(1, 2) for map in maps], 1) for maps in outs)
    scores, labels = cls_scores.sigmoid().max(2)
    scores = scores * objectness.squeeze(2).sigmoid()
    return head._bbox_decode(priors, boxes), only(scores >= head.test_cfg.score_thr, scores), labels


class _Choice:
    """What stands for the choice among candidates, and for what follows it, while a head predicts.

    Args:
        images: B, of which all tensors are made.
        others: What is kept besides boxes, scores and labels.
    """

    def __init__(self, images: int, others: tuple[str, ...]) -> None:
        self.images, self.others = images, others
        self.counts: list[int] = []  # candidates of an image in each map

    def choose(self, scores: Tensor, score_thr: float, topk: int, results: Mapping[str, Tensor] | None = None) -> tuple:
        """``filter_scores_and_topk`` of mmdet, for each image by itself."""
        classes, positions = scores.shape[1], scores.shape[0] // self.images
        flat = scores.reshape(self.images, positions * classes)
        most = positions * classes
        count = topk if topk > 0 and (not isinstance(most, int) or topk < most) else most
        self.counts.append(count)
        scores, places = best(flat, count)
        first = positions * torch.arange(self.images, device=scores.device)[:, None]
        keep = (places // classes + first).flatten()
        kept = results and {name: value[keep] for name, value in results.items()}
        return only(scores > score_thr, scores).flatten(), (places % classes).flatten(), keep, kept

    def candidates(self, results: Any, cfg: Mapping[str, Any], **_: Any) -> tuple[Tensor, ...]:
        """``_bbox_post_process`` of a head, but for the suppression, by image."""
        scores = results.scores
        if hasattr(results, 'score_factors'):
            scores = torch.where(scores >= 0, scores * results.score_factors, scores)
        least = cfg.get('min_bbox_size', -1)
        if least >= 0:
            sides = results.bboxes[:, 2:] - results.bboxes[:, :2]
            scores = only((sides > least).all(1), scores)
        others = (getattr(results, name) for name in self.others)
        return tuple(map(self._by_image, (results.bboxes, scores, results.labels, *others)))

    def _by_image(self, values: Tensor) -> Tensor:
        parts = values.split([self.images * count for count in self.counts])
        return torch.cat([part.reshape(self.images, count, *values.shape[1:])
                          for part, count in zip(parts, self.counts, strict=True)], 1)


def in_modules(name: str, function: Callable) -> list[Place]:
    """The places of a function of mmdet or mmcv: its name in every module of models and operators."""
    return [(module, name, function) for key, module in list(sys.modules.items())
            if key.startswith(('mmdet.models.', 'mmcv.ops.')) and name in vars(module)]


@contextmanager
def _anchors_of(head: Any, images: int) -> Iterator[None]:
    """Give TOOD's head the anchors of all images at once, where its loop would make the number of images a constant."""
    if type(head).__name__ != 'TOODHead':
        yield
        return
    module, generator = sys.modules[type(head).__module__], head.prior_generator
    of_one = generator.single_level_grid_priors
    with replaced([(generator, 'single_level_grid_priors', lambda *args, **kwargs: of_one(*args, **kwargs).repeat(
            images, 1)), (module, 'range', lambda number: (0, ))]):
        yield


@contextmanager
def _copied_project(head: nn.Module) -> Iterator[None]:
    """Give GFL's integral a copy of its buffer: the exporter fails at a buffer that is converted to its own type."""
    if not hasattr(head, 'integral'):
        yield
        return
    project = head.integral._buffers.pop('project')
    head.integral.project = project.clone()
    try:
        yield
    finally:
        del head.integral.project
        head.integral._buffers['project'] = project


@contextmanager
def without_older_forms() -> Iterator[None]:
    """Leave out the forms for ONNX that mmdet's coders of boxes have, which need a module that it no longer has."""
    with replaced([(torch.onnx, 'is_in_onnx_export', lambda: False)]):
        yield
