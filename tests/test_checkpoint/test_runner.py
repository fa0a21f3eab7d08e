"""mmengine's Runner reads its own checkpoints, and published ones, through our reader."""

import pytest
import torch
from code_in_files import Mkdir
from torch import nn

pytest.importorskip('mmengine')

from mmengine.model import BaseModel, BaseModule  # noqa: E402
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint  # noqa: E402

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.checkpoint import load_from_local, read_checkpoint, write_checkpoint  # noqa: E402


class Line(BaseModel):

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        y = self.line(x)
        return {'loss': y.square().mean()} if mode == 'loss' else y


def runner(folder, **arguments):
    dataset = [{'x': torch.full((2, ), i / 8)} for i in range(8)]
    loader = dict(dataset=dataset, batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'),
                  sampler=dict(type='DefaultSampler', shuffle=False))
    return Runner(
        Line(), str(folder), train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=[dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=3),
                         dict(type='CosineAnnealingLR', T_max=2)],
        custom_hooks=[dict(type='EMAHook')], default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        default_scope='mmengine', log_level='WARNING', randomness=dict(seed=0), **arguments)


def test_mmengine_uses_our_loader():
    assert CheckpointLoader._get_checkpoint_loader('some/file.pth') is load_from_local


def test_a_run_resumes(tmp_path):
    whole = runner(tmp_path / 'whole', experiment_name='whole')
    whole.train()
    checkpoint = read_checkpoint(tmp_path / 'whole' / 'epoch_1.pth')
    assert checkpoint['meta']['epoch'] == 1
    assert checkpoint['message_hub']['log_scalars']['train/loss'].mean() > 0
    resumed = runner(tmp_path / 'resumed', experiment_name='resumed', resume=True,
                     load_from=str(tmp_path / 'whole' / 'epoch_1.pth'))
    resumed.train()
    assert resumed.iter == 8
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())
    a, b = (read_checkpoint(tmp_path / folder / 'epoch_2.pth') for folder in ('whole', 'resumed'))
    torch.testing.assert_close(a['ema_state_dict'], b['ema_state_dict'])
    assert a['param_schedulers'] == b['param_schedulers']


def test_the_runner_does_not_run_what_a_file_asks_for(tmp_path):
    torch.save({'state_dict': Line().state_dict(), 'meta': Mkdir(tmp_path / 'made')}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='refused to load'):
        load_checkpoint(Line(), str(tmp_path / 'x.pth'), map_location='cpu')
    assert not (tmp_path / 'made').exists()


class Neck(BaseModule):
    """Names of a HorFPN."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        from plugconv_mm.ops import GnConv2d
        self.lateral_convs = nn.ModuleList([nn.ModuleDict({'conv': nn.Conv2d(2, 4, 1)})])
        self.fpn_convs = nn.ModuleList([nn.ModuleDict({'conv': GnConv2d(4)})])


@pytest.mark.parametrize('wrap, prefix', [
    (lambda state: state, None),
    (lambda state: {'model': state, 'epoch': 1}, None),
    (lambda state: {'state_dict': {f'neck.{key}': value for key, value in state.items()}}, 'neck.'),
])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_published_weights_stand_in_init_cfg(tmp_path, wrap, prefix, suffix):
    source = Neck()
    published = wrap({key.replace('fpn_convs.0.conv.', 'fpn_convs.0.'): value
                      for key, value in source.state_dict().items()})
    if suffix == 'safetensors':
        published = published.get('model', published.get('state_dict', published))
    path = tmp_path / f'published.{suffix}'
    write_checkpoint(published, path)
    neck = Neck(init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix=prefix))
    neck.init_weights()
    torch.testing.assert_close(neck.state_dict(), source.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize('wrap', [
    lambda state: {'model': state, 'epoch': 1},
    lambda state: {'model': {f'module.{key}': value for key, value in state.items()}},
    lambda state: {'model_ema': state},
    lambda state: state,
], ids=['model', 'module.', 'model_ema', 'bare'])
def test_wrapped_weights_whose_names_are_ours_load(tmp_path, wrap):
    """HorNet's published names are ours, but mmengine does not look under 'model'."""
    pytest.importorskip('mmcv')
    from plugconv_mm.models import HorNet
    arch = dict(channels=[4, 8, 16, 32], depths=[1, 1, 1, 1], orders=[2, 2, 2, 2], filters=['7x7'] * 3 + ['gf'],
                filter_sizes=[(14, 8)] * 3 + [(7, 4)])
    source = HorNet(arch)
    head = {'norm.weight': torch.ones(32), 'head.weight': torch.zeros(2, 32)}
    write_checkpoint(wrap({**source.state_dict(), **head}), tmp_path / 'published.pth')
    arch['filter_sizes'] = [(14, 8)] * 3 + [(12, 7)]  # for larger images
    backbone = HorNet(arch, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'published.pth')))
    backbone.init_weights()
    name = 'stages.3.0.gnconv.dwconv.complex_weight'
    loaded, published = backbone.state_dict(), source.state_dict()
    assert loaded.pop(name).shape == (loaded['stages.3.0.gnconv.dwconv.dw.weight'].shape[0], 12, 7, 2)
    published.pop(name)
    torch.testing.assert_close(loaded, published, rtol=0, atol=0)


def test_other_checkpoints_pass_unchanged(tmp_path):
    checkpoint = {'state_dict': {'conv1.weight': torch.zeros(1), 'fc.weight': torch.zeros(1)}, 'meta': {'epoch': 3}}
    write_checkpoint(checkpoint, tmp_path / 'x.pth')
    assert load_from_local(str(tmp_path / 'x.pth')) == checkpoint
