"""Data sets, pipelines, evaluators and starting weights of a config."""
import pytest

for name in ('mmengine', 'mmdet'):
    pytest.importorskip(name)

from mmengine.config import Config, ConfigDict  # noqa: E402

from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime.config_parts import (  # noqa: E402
    evaluators_of,
    first_test_dataset,
    inner_datasets,
    metainfo_of,
    pipelines_of,
    starting_weights,
)


def coco(name, **more):
    return dict(type='CocoDataset', ann_file=name, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='Resize', scale=8)],
        **more)


WRAPPERS = dict(
    plain=lambda inner: inner,
    repeat=lambda inner: dict(type='RepeatDataset', times=2, dataset=inner),
    balanced=lambda inner: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=inner),
    concat=lambda inner: dict(type='ConcatDataset', datasets=[inner, coco('second')]),
    mix=lambda inner: dict(type='MultiImageMixDataset', dataset=inner, pipeline=[dict(type='PackDetInputs')]),
    all=lambda inner: dict(type='RepeatDataset', times=1, dataset=dict(type='ConcatDataset', datasets=[
        dict(type='MultiImageMixDataset', dataset=inner, pipeline=[dict(type='PackDetInputs')]), coco('second')])),
)


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_pipeline_of_the_first_dataset(wrapper):
    cfg = Config(dict(test_dataloader=dict(dataset=WRAPPERS[wrapper](coco('first')))))
    dataset, steps = first_test_dataset(cfg)
    assert dataset.ann_file == 'first'
    packed = ['PackDetInputs'] if wrapper in ('mix', 'all') else []
    assert [step.type for step in steps] == ['LoadImageFromFile', 'Resize', *packed]


def test_places_are_those_of_options():
    cfg = Config(dict(test_dataloader=dict(dataset=WRAPPERS['all'](coco('first')))))
    places = [place for place, _ in inner_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset')]
    assert places == ['test_dataloader.dataset.dataset.datasets.0.dataset',
                      'test_dataloader.dataset.dataset.datasets.1']
    cfg.merge_from_dict({f'{places[0]}.ann_file': 'other'})
    assert first_test_dataset(cfg)[0].ann_file == 'other'
    assert [steps[-1].type for _, steps in pipelines_of(cfg.test_dataloader.dataset, 'x')] == [
        'PackDetInputs', 'Resize']


def test_a_key_in_a_pipeline_is_no_dataset():
    dataset = coco('first')
    dataset['pipeline'].append(dict(type='Mosaic', dataset=coco('other')))
    assert [node['ann_file'] for _, node in inner_datasets(dataset, 'd')] == ['first']


@pytest.mark.parametrize('cfg', [
    dict(), dict(test_dataloader=None), dict(test_dataloader=dict(dataset=dict(type='x')))])
def test_no_pipeline(cfg):
    with pytest.raises(ConfigError, match='x.py has no test_dataloader with a dataset.pipeline'):
        first_test_dataset(Config(cfg), 'x.py')


def test_names_of_classes():
    own = metainfo_of(ConfigDict(type='CocoDataset', metainfo=dict(classes=('a', ))), 'mmdet')
    assert own['classes'] == ('a', ) and len(own['palette']) == 80
    assert metainfo_of(ConfigDict(type='VOCDataset'), 'mmdet')['classes'][0] == 'aeroplane'


def test_evaluators():
    one, two = dict(type='A'), dict(type='B')
    assert evaluators_of(Config(dict(val_evaluator=one)), 'val_evaluator') == [('val_evaluator', one)]
    assert evaluators_of(Config(dict(val_evaluator=[one, two])), 'val_evaluator') == [
        ('val_evaluator.0', one), ('val_evaluator.1', two)]
    assert evaluators_of(Config(dict(val_evaluator=None)), 'val_evaluator') == []


def test_starting_weights():
    model = ConfigDict(
        pretrained='a.pth', backbone=dict(init_cfg=dict(type='mmengine.PretrainedInit', checkpoint='b')),
        heads=[dict(init_cfg=dict(type='Normal')), dict(init_cfg=dict(type='Pretrained', checkpoint='c')),
               dict(init_cfg=dict(checkpoint='d'))])
    assert [(path, key, file) for path, _, key, file in starting_weights(model)] == [
        ('model', 'pretrained', 'a.pth'), ('model.backbone', 'init_cfg', 'b'), ('model.heads.1', 'init_cfg', 'c'),
        ('model.heads.2', 'init_cfg', 'd')]
