"""A type that no registry knows, wherever it stands in a config, ends in one message."""
import pytest
import torch
from torch import nn

for name in ('mmengine', 'mmcv', 'mmdet'):
    pytest.importorskip(name)

import mmdet.models  # noqa: E402, F401
from mmcv.cnn import ConvModule, build_upsample_layer  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.evaluator import BaseMetric  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.registry import DATASETS, METRICS, MODELS, Registry, init_default_scope  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from plugconv_mm.runtime.registry_errors import config_errors  # noqa: E402
from plugconv_mm.runtime.user_errors import explain  # noqa: E402


@MODELS.register_module()
class UnknownTypesModel(BaseModel):

    def __init__(self, conv_cfg=None, norm_cfg=None, act_cfg=None, upsample_cfg=None, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.conv = ConvModule(2, 2, 3, padding=1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        if upsample_cfg:
            build_upsample_layer(upsample_cfg)

    def forward(self, inputs, mode='loss'):
        y = self.conv(torch.stack(inputs))
        return dict(loss=y.sum()) if mode == 'loss' else [y]


@DATASETS.register_module()
class UnknownTypesData(torch.utils.data.Dataset):
    metainfo = {}

    def __init__(self, pipeline=()):
        from mmengine.dataset import Compose
        self.pipeline = Compose(pipeline)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(2, 4, 4))


@METRICS.register_module()
class UnknownTypesMetric(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


@pytest.fixture
def config(tmp_path):
    loader = dict(batch_size=1, dataset=dict(type='UnknownTypesData'), sampler=dict(type='DefaultSampler'),
                  collate_fn=dict(type='pseudo_collate'))
    return Config(dict(
        default_scope='mmdet', work_dir=str(tmp_path), log_level='ERROR', experiment_name=tmp_path.name,
        model=dict(type='UnknownTypesModel', act_cfg=dict(type='ReLU'), norm_cfg=dict(type='BN'),
                   init_cfg=dict(type='Normal', layer='Conv2d')),
        train_dataloader=loader, val_dataloader=loader, val_evaluator=dict(type='UnknownTypesMetric'),
        train_cfg=dict(by_epoch=True, max_epochs=1), val_cfg=dict(),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=dict(type='ConstantLR'), custom_hooks=[dict(type='EmptyCacheHook')],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])))


def run(cfg):
    try:
        init_default_scope('mmdet')
        with config_errors():
            Runner.from_cfg(cfg).train()
    except Exception as error:
        return explain(error)
    return 'it ran'


def test_all_known(config):
    assert run(config) == 'it ran'


OURS = "The config also needs: custom_imports = dict(imports=['plugconv_mm'])"


@pytest.mark.parametrize('place, given, near', [
    ('model.type', 'UnknownTypeModel', 'mmengine.UnknownTypesModel'),
    ('model.conv_cfg', 'GnConv2d', 'plugconv_mm.GnConv2d'),
    ('model.conv_cfg', 'plugconv_mm.GnConv', 'plugconv_mm.GnConv2d'),
    ('model.norm_cfg', 'BM', None),
    ('model.norm_cfg', 'SyncBNN', 'SyncBN'),
    ('model.act_cfg', 'LeakyRelu', 'LeakyReLU'),
    ('model.upsample_cfg', 'deconf', 'deconv'),
    ('model.init_cfg', 'Normall', 'Normal'),
    ('train_dataloader.dataset.type', 'UnknownTypeData', 'mmengine.UnknownTypesData'),
    ('train_dataloader.dataset.pipeline', 'PackDetInput', 'mmdet.PackDetInputs'),
    ('train_dataloader.sampler', 'DefaultSamplr', 'DefaultSampler'),
    ('train_dataloader.collate_fn', 'pseudo_colate', 'pseudo_collate'),
    ('train_dataloader.worker_init_fn', 'worker_init', None),
    ('val_evaluator.type', 'CocoMetrik', 'mmdet.CocoMetric'),
    ('train_cfg', 'EpochBasedTrainLoops', 'EpochBasedTrainLoop'),
    ('optim_wrapper.type', 'OptimWraper', 'OptimWrapper'),
    ('optim_wrapper.optimizer.type', 'Adamw', 'AdamW'),
    ('optim_wrapper.constructor', 'LearningRateDecayConstructor', None),
    ('param_scheduler.type', 'ConstantLr', 'ConstantLR'),
    ('custom_hooks.0.type', 'CheckFiniteHook', 'plugconv_mm.CheckFiniteHook'),
    ('visualizer.type', 'DetLocalVisualiser', 'mmdet.DetLocalVisualizer'),
    ('visualizer.vis_backends.0.type', 'LocalVisBackends', 'LocalVisBackend'),
])
def test_unknown_type(place, given, near, config):
    """One message with the name, the nearest ones, and what to import where they are ours."""
    parent, _, last = place.rpartition('.')
    value = given if last in ('type', 'constructor') else dict(type=given)
    node = config
    for key in filter(None, parent.split('.')):
        node = node[int(key)] if key.isdigit() else node[key]
    if last == 'pipeline':
        node[last] = [value]
    elif last == 'train_cfg':
        node[last] = dict(type=given, max_epochs=1)
    elif last in ('sampler', 'collate_fn', 'init_cfg') and last in node:
        node[last]['type'] = given
    else:
        node[last] = value
    message = run(config)
    assert message is not None and message.startswith(f'the config names {given}, which is not a '), message
    if near:
        assert f'{near}\'' in message.split('Did you mean')[1]
    ours = (near or '').startswith('plugconv_mm.')
    assert (OURS in message) == ours


class Broken(nn.Module):

    def __init__(self):
        super().__init__()
        key = 'an error of the code'
        {}[key]


def test_other_errors_are_none_of_these(config):
    MODELS.register_module(name='UnknownTypesBroken', module=Broken, force=True)
    with pytest.raises(KeyError) as error, config_errors():
        MODELS.build(dict(type='UnknownTypesBroken'))
    assert explain(error.value) is None
    config.model.norm_cfg = dict(type='BN', no_such_argument=1)
    assert 'no_such_argument' in run(config) and 'is not a' not in run(config)


def test_an_initialiser_with_other_arguments(config):
    config.model.init_cfg = dict(type='Normal', layer='Conv2d', deviation=1)
    message = run(config)
    assert message.startswith('cannot build Normal as the config asks') and 'deviation' in message


def test_a_name_that_is_not_needed(config):
    """Who asks a registry and goes on without the name is not blamed for a later error."""

    class Optional(nn.Module):

        def __init__(self):
            super().__init__()
            assert 'NoSuchLayer' not in MODELS and find('NoSuchLayer') is None
            {}['an error of the code']

    def find(name):
        try:
            return MODELS.get(name)
        except RuntimeError:
            return None

    MODELS.register_module(name='UnknownTypesOptional', module=Optional, force=True)
    with pytest.raises(KeyError, match='an error of the code'), config_errors():
        MODELS.build(dict(type='UnknownTypesOptional'))


def test_registries_are_as_before(config):
    before = Registry.get, Registry.build
    run(config)
    config.model.type = 'UnknownTypeModel'
    run(config)
    assert (Registry.get, Registry.build) == before
