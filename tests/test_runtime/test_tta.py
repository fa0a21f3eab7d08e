"""Test-time augmentation of detectors with masks, and of data sets in wrappers."""
import copy

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from own_configs import ROOT  # noqa: E402

from plugconv_mm.datasets import build_mini  # noqa: E402
from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime.build_runner import build_runner  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402
from plugconv_mm.runtime.shrink_config import leave_out_weights, make_small  # noqa: E402
from plugconv_mm.runtime.tta import set_tta  # noqa: E402


def load(name):
    return load_config(make_parser('').parse_args([str(ROOT / f'configs/{name}.py')]))


@pytest.mark.slow
def test_boxes_of_a_detector_with_masks(tmp_path):
    """CondInst, whose masks are no part that can be left out of the config."""
    build_mini(tmp_path / 'data')
    cfg = load('horfpn/condinst_r50_horfpn_ms-poly-90k_coco')
    cfg.work_dir = str(tmp_path / 'work')
    leave_out_weights(cfg)
    make_small(cfg, tmp_path / 'data')
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dict(cfg.test_dataloader.dataset, indices=1)])
    with pytest.warns(UserWarning, match='box AP only'):
        set_tta(cfg, 'mmdet')
    assert cfg.model.type == 'plugconv_mm.BoxTTAModel'
    runner = build_runner(cfg)
    views = []
    runner.model.module.backbone.register_forward_pre_hook(lambda module, args: views.append(args[0]))
    metrics = runner.test()
    assert 'coco/bbox_mAP' in metrics and not [key for key in metrics if 'segm' in key]
    assert len(views) == 2 and not views[0].equal(views[1]) and views[0].flip(3).equal(views[1])


@pytest.mark.parametrize('name, said', [
    ('solov2_r50_horfpn_1x_coco', 'SOLOv2 predicts masks without boxes'),
    ('panoptic-fpn_r50_horfpn_1x_coco', r'PanopticFPN is evaluated by more than these \(CocoPanopticMetric\)')])
def test_without_boxes_nothing_runs(name, said):
    with pytest.raises(ConfigError, match=f'--tta merges boxes, and {said}.*without --tta'):
        set_tta(load(f'horfpn/{name}'), 'mmdet')


def test_a_model_of_the_users_that_merges_masks_has_them():
    cfg = load('digits/mask-rcnn_parc-resnet50-thin_horfpn_digits')
    cfg.tta_model.type = 'MergesMasks'
    set_tta(cfg, 'mmdet')
    assert 'segm' in cfg.test_evaluator.metric and cfg.model.module.roi_head.mask_head


@pytest.mark.parametrize('own', [True, False])
def test_pipelines_in_wrappers(own):
    """Every data set has views; a wrapper's pipeline, which ends those of its data set, is in these."""
    cfg = load('digits/mask-rcnn_parc-resnet50-thin_horfpn_digits')
    written = cfg.tta_pipeline
    if not own:
        cfg.pop('tta_pipeline')
    dataset = cfg.test_dataloader.dataset
    whole = dataset.pipeline
    mixed = dict(copy.deepcopy(dataset), pipeline=whole[:-1])
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[
        dict(type='RepeatDataset', times=1, dataset=dataset),
        dict(type='MultiImageMixDataset', dataset=mixed, pipeline=whole[-1:])])
    set_tta(cfg, 'mmdet')
    first, second = cfg.test_dataloader.dataset.datasets
    assert second.pipeline == []
    for pipeline in (first.dataset.pipeline, second.dataset.pipeline):
        if own:
            assert pipeline == written
        else:
            assert pipeline[:-1] == whole[:-1] and pipeline[-1].type == 'TestTimeAug'
            flips, (pack, ) = pipeline[-1].transforms
            assert [flip.prob for flip in flips] == [1., 0.] and pack.type == 'PackDetInputs'
            assert {'flip', 'flip_direction'} <= set(pack.meta_keys)
