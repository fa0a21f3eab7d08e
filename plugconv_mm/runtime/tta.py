"""Test-time augmentation: configs changed so that a test merges the predictions on several views of an image."""
import warnings
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_parts import class_of, datasets_at, evaluators_of, pipelines_of, without_operators
from plugconv_mm.runtime.config_tree import type_name

_META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
# Evaluators of mmdet that need more than boxes.
_BEYOND_BOXES = ('CityScapesMetric', 'CocoPanopticMetric', 'SemSegMetric')


def set_tta(cfg: Config, scope: str | None) -> None:
    """Wrap the model and replace the pipelines of the test; where the config does not say how, by a flip.

    Of a detector boxes alone are merged: its masks are neither computed, where a part of it does that, nor evaluated.

    Args:
        cfg: The whole config, changed in place.
        scope: Its ``default_scope``.

    Raises:
        ConfigError: The config does not say how predictions are merged, or the model predicts no boxes.
    """
    if scope == 'mmseg' and 'tta_pipeline' not in cfg:
        raise ConfigError('--tta needs tta_model and tta_pipeline in an mmseg config')
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(type='mmpretrain.AverageClsScoreTTA') if scope == 'mmpretrain' else dict(
            type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    if type_name(cfg.tta_model.get('type')) in ('DetTTAModel', 'BoxTTAModel'):
        _leave_out_masks(cfg, scope)
    dataset = cfg.test_dataloader.dataset
    for inner, steps in list(pipelines_of(dataset, 'test_dataloader.dataset')):
        inner.pipeline = cfg.get('tta_pipeline') or _with_flip(steps, scope)
    for _, node in datasets_at(dataset, 'test_dataloader.dataset'):
        if 'pipeline' in node and ('dataset' in node or 'datasets' in node):
            node.pipeline = []  # a wrapper's, which is in those of the datasets now
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _with_flip(steps: list[dict], scope: str | None) -> list[dict]:
    """The pipeline that gives an image as it is and its mirror image."""
    *steps, pack = deepcopy(steps)
    if scope == 'mmdet':
        pack.meta_keys = _META_KEYS
    flips = [dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def _leave_out_masks(cfg: Config, scope: str | None) -> None:
    from mmdet.models.detectors.panoptic_two_stage_segmentor import TwoStagePanopticSegmentor
    from mmdet.models.detectors.single_stage_instance_seg import SingleStageInstanceSegmentor
    evaluators = [evaluator for _, evaluator in evaluators_of(cfg, 'test_evaluator')]
    model = without_operators(cfg.model)
    name, kind = type_name(model.type), class_of(model, MODELS, scope)
    beyond = [type_name(evaluator.get('type')) for evaluator in evaluators
              if type_name(evaluator.get('type')) in _BEYOND_BOXES]
    if issubclass(kind, SingleStageInstanceSegmentor) and not model.get('bbox_head'):
        raise ConfigError(f'--tta merges boxes, and {name} predicts masks without boxes: evaluate it without --tta')
    if beyond or issubclass(kind, TwoStagePanopticSegmentor):
        raise ConfigError(f'--tta merges boxes, and {name} is evaluated by more than these'
                          + f' ({", ".join(beyond)})' * bool(beyond) + ': evaluate it without --tta')
    with_masks = [evaluator for evaluator in evaluators if 'segm' in evaluator.get('metric', '')]
    if with_masks:
        warnings.warn('mmdet merges the boxes of test-time augmentation, not the masks: box AP only', stacklevel=3)
    for evaluator in with_masks:
        evaluator.metric = 'bbox'
    cfg.tta_model.type = 'plugconv_mm.BoxTTAModel'
    if 'mask_head' in (model.get('roi_head') or {}):
        model.roi_head.update(mask_head=None, mask_roi_extractor=None)
