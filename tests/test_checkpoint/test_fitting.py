"""Weights of any network reach its model, or an error says that they do not."""
import copy
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from mmengine.model import BaseModel, BaseModule, BaseTTAModel  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from mmengine.runner import CheckpointLoader, load_checkpoint, load_state_dict  # noqa: E402

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.checkpoint import write_checkpoint  # noqa: E402
from plugconv_mm.errors import CheckpointError  # noqa: E402


class Backbone(BaseModule):

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = nn.Conv2d(2, 3, 1)
        self.bn = nn.BatchNorm2d(3)


class Network(BaseModel):
    """A network that is none of ours."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.backbone.bn(self.backbone.conv(x)).mean((2, 3)))


class Wrapper(BaseModel):
    """A network whose own names all begin with `model.`."""

    def __init__(self):
        super().__init__()
        self.model = Network()

    def forward(self, x):
        return self.model(x)


def trained(kind=Network):
    torch.manual_seed(0)
    model = kind()
    for value in model.state_dict().values():
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    return model


def under(prefix, state):
    return OrderedDict((prefix + key, value) for key, value in state.items())


WRAPPINGS = {
    'bare': lambda state: state,
    'state_dict': lambda state: {'state_dict': state},
    'model': lambda state: {'model': state, 'optimizer': {'state': {}}, 'epoch': 3},
    'model_ema': lambda state: {'model_ema': {'n_averaged': torch.tensor(3), **under('module.', state)}},
    'module.': lambda state: {'state_dict': under('module.', state)},
    'model.': lambda state: {'state_dict': under('model.', state), 'epoch': 3},
    '_orig_mod.': lambda state: {'model': under('_orig_mod.', state)},
    'module._orig_mod.': lambda state: under('module._orig_mod.', state),
    'a run, _orig_mod.': lambda state: {'state_dict': under('_orig_mod.', state), 'meta': {'epoch': 3}},
    'a run, model.': lambda state: {'state_dict': under('model.', state), 'meta': {'epoch': 3}},
    'a run, inside': lambda state: {'meta': {}, 'state_dict': OrderedDict(
        (key.replace('backbone.', 'backbone._orig_mod.'), value) for key, value in state.items())},
}


@pytest.mark.parametrize('kind', [Network, Wrapper])
@pytest.mark.parametrize('wrap', WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_reach_the_model(tmp_path, wrap, kind):
    source, model = trained(kind), kind()
    write_checkpoint(wrap(source.state_dict()), tmp_path / 'x.pth')
    load_checkpoint(model, str(tmp_path / 'x.pth'), map_location='cpu', strict=True)
    torch.testing.assert_close(model.state_dict(), source.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize('wrap', [WRAPPINGS[name] for name in WRAPPINGS if name != 'a run, model.'])
def test_a_backbone_takes_its_part(tmp_path, wrap):
    """`prefix` in init_cfg looks for names before any model is known."""
    source = trained()
    write_checkpoint(wrap(source.state_dict()), tmp_path / 'x.pth')
    backbone = Backbone(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'), prefix='backbone.'))
    backbone.init_weights()
    torch.testing.assert_close(backbone.state_dict(), source.backbone.state_dict(), rtol=0, atol=0)


def test_a_wrapped_model_takes_bare_weights(tmp_path):
    source, model = trained(), Wrapper()
    write_checkpoint({'model': source.state_dict()}, tmp_path / 'x.pth')
    load_checkpoint(model, str(tmp_path / 'x.pth'))
    torch.testing.assert_close(model.model.state_dict(), source.state_dict(), rtol=0, atol=0)


class Compiled(nn.Module):
    """Holds a module as torch.compile does."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


def test_a_compiled_part_takes_bare_weights():
    source, model = trained(), Network()
    backbone = model.backbone
    model.backbone = Compiled(backbone)
    load_state_dict(model, source.state_dict(), strict=True)
    torch.testing.assert_close(backbone.state_dict(), source.backbone.state_dict(), rtol=0, atol=0)


def test_test_time_augmentation_takes_the_weights_of_its_model(tmp_path):
    source = trained()
    tta = type('TTA', (BaseTTAModel, ), dict(merge_preds=lambda self, samples: samples))
    model = tta(module=Network())
    write_checkpoint({'model': source.state_dict()}, tmp_path / 'x.pth')
    load_checkpoint(model, str(tmp_path / 'x.pth'))
    torch.testing.assert_close(model.module.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_runs_pass_as_they_are(tmp_path):
    """The optimizer and all else stays, and names that begin with `model.`, too."""
    state = trained(Wrapper).state_dict()
    checkpoint = {'state_dict': state, 'meta': {'epoch': 3}, 'optimizer': {'state': {}}, 'message_hub': {}}
    write_checkpoint(checkpoint, tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu', 'silent')
    assert read.keys() == checkpoint.keys() and read['meta'] == {'epoch': 3}
    assert read['state_dict'].keys() == state.keys()
    assert read['state_dict']._metadata == state._metadata  # versions of the modules
    write_checkpoint({**checkpoint, 'state_dict': under('_orig_mod.', state)}, tmp_path / 'x.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu', 'silent')
    assert read.keys() == checkpoint.keys() and read['state_dict'].keys() == state.keys()


@pytest.mark.parametrize('state, message', [
    ({'layer.weight': torch.zeros(1)}, r"no weight that fits Network, .* it has 'layer.weight', and Network expects '"),
    ({}, 'no weight that fits Network'),
    (Network().backbone.state_dict(), r"weights of the model's backbone alone: name it .* model\.backbone\.init_cfg"),
    ({key: torch.zeros(7) for key in Network().state_dict() if 'num_batches' not in key}, 'no weight that fits'),
], ids=['other', 'empty', 'backbone', 'shapes'])
def test_nothing_fits(tmp_path, state, message):
    write_checkpoint({'state_dict': state, 'meta': {}}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(Network(), str(tmp_path / 'x.pth'))


def test_nothing_fits_a_backbone_without_its_prefix(tmp_path):
    write_checkpoint({'state_dict': trained().state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    backbone = Backbone(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
    with pytest.raises(CheckpointError, match=r"fits Backbone, .* give init_cfg prefix='backbone\.'"):
        backbone.init_weights()


def test_a_part_is_enough_and_the_rest_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmengine.runner.checkpoint.print_log', lambda message, **kwargs: said.append(message))
    state = {key: value for key, value in trained().state_dict().items() if not key.startswith('head.')}
    load_state_dict(Network(), {**state, 'novel.weight': torch.zeros(1)})
    assert len(said) == 1 and 'unexpected key in source state_dict: novel.weight' in said[0]
    assert 'missing keys in source state_dict: head.weight, head.bias' in said[0]


class Renamed(nn.Module):
    """It once had other names, and takes them still."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(3))
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state_dict, prefix, *args):
        if f'{prefix}old' in state_dict:
            state_dict[f'{prefix}scale'] = state_dict.pop(f'{prefix}old')


def test_names_that_a_module_changes_itself():
    model = Renamed()
    load_state_dict(model, {'old': torch.ones(3)})
    assert model.scale.tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match='no weight that fits Renamed'):
        load_state_dict(model, {'older': torch.ones(3)})


def test_a_model_without_weights():
    load_state_dict(nn.ReLU(), {'weight': torch.zeros(1)})


def test_a_sharded_model():
    from plugconv_mm.engine.strategies.fsdp import FSDPStrategy
    model, source, said = Network(), trained(), []
    strategy = SimpleNamespace(model=SimpleNamespace(module=model, load_state_dict=model.load_state_dict),
                               _shapes={name: value.shape for name, value in model.state_dict().items()},
                               logger=SimpleNamespace(warning=said.append))
    FSDPStrategy.load_model_state_dict(strategy, under('model.', source.state_dict()))
    torch.testing.assert_close(model.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert not said
    with pytest.raises(CheckpointError, match='no weight that fits Network'):
        FSDPStrategy.load_model_state_dict(strategy, {'novel.weight': torch.zeros(1)})


# -- names of mmpretrain

def mmpretrain_model(**kwargs):
    pytest.importorskip('mmpretrain.models')
    return trained(lambda: MODELS.build(dict(_scope_='mmpretrain', **kwargs)))


HORNET = dict(base_dim=8, depths=[1, 1, 2, 1], orders=[2, 3, 2, 2], dw_cfg=[
    dict(type='DW', kernel_size=7), dict(type='DW', kernel_size=7), dict(type='GF', h=14, w=8),
    dict(type='GF', h=7, w=4)])
OURS = {
    'hornet': dict(type='plugconv_mm.HorNet', arch=dict(
        channels=[8, 16, 32, 64], depths=[1, 1, 2, 1], orders=[2, 3, 2, 2], filters=['7x7', '7x7', 'gf', 'gf'],
        filter_sizes=[(14, 8)] * 3 + [(7, 4)])),
    'convnext': dict(type='plugconv_mm.ParCConvNeXt', arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 2, 3]),
                     parc_blocks=(0, 0, 0, 0)),
}
THEIRS = {
    'hornet': dict(type='HorNet', arch=HORNET, out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
    'convnext': dict(type='ConvNeXt', arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 2, 3]),
                     out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
}


@pytest.mark.parametrize('network', OURS)
@pytest.mark.parametrize('how', ['convert', 'init_cfg', 'whole'])
def test_mmpretrain_names_become_ours(tmp_path, network, how):
    from plugconv_mm.checkpoint import convert_official
    theirs = mmpretrain_model(**THEIRS[network])
    theirs.eval()
    classifier = {**under('backbone.', theirs.state_dict()), 'head.fc.weight': torch.zeros(10, 64),
                  'head.fc.bias': torch.zeros(10)}
    path = tmp_path / 'mmpretrain.pth'
    write_checkpoint({'meta': {'epoch': 3}, 'state_dict': classifier}, path)
    if how == 'convert':
        ours = MODELS.build(OURS[network])
        converted = convert_official({'state_dict': classifier})
        ours.load_state_dict(converted, strict=True)
        again = convert_official(converted)
        assert again.keys() == converted.keys()
    elif how == 'init_cfg':
        ours = MODELS.build(dict(OURS[network], init_cfg=dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.')))
        ours.init_weights()
    else:
        model = MODELS.build(dict(
            _scope_='mmpretrain', type='ImageClassifier', backbone=OURS[network], neck=dict(
                type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=10, in_channels=64)))
        load_checkpoint(model, str(path), strict=True)
        ours = model.backbone
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        ours.eval()
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('network', OURS)
def test_models_of_mmpretrain_keep_their_names(tmp_path, network):
    theirs = mmpretrain_model(**THEIRS[network])
    write_checkpoint({'state_dict': under('backbone.', theirs.state_dict())}, tmp_path / 'x.pth')
    again = MODELS.build(dict(_scope_='mmpretrain', **THEIRS[network], init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'x.pth'), prefix='backbone.')))
    again.init_weights()
    torch.testing.assert_close(again.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_convnext_with_other_layers_is_refused():
    from plugconv_mm.checkpoint import convert_official
    state = mmpretrain_model(**THEIRS['convnext'], linear_pw_conv=False).state_dict()
    with pytest.raises(CheckpointError, match=r'pointwise_conv1.weight.* shape \(32, 8, 1, 1\), expected \(\*, \*\)'):
        convert_official(state)


# -- whole kernels

def published_slak(model, merged):
    """The state dict of a SLaK with whole kernels as its authors name it, with a classifier, merged or not."""
    if merged:
        model = copy.deepcopy(model)
        model.switch_to_deploy()
    state = {key.replace('.large_conv.', f'.lkb_{"reparam" if merged else "origin"}.'): value
             for key, value in model.state_dict().items() if not key.startswith('norm')}
    return {**state, 'norm.weight': torch.ones(32), 'norm.bias': torch.zeros(32), 'head.weight': torch.zeros(5, 32),
            'head.bias': torch.zeros(5)}


SLAK = dict(type='plugconv_mm.SLaK', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]), width_factor=1.,
            kernel_size=(13, 11, 9, 7), layer_scale_init=1., out_indices=(0, ))


@pytest.mark.parametrize('merged', [False, True])
@pytest.mark.parametrize('small_kernel', [5, None])
def test_whole_kernels_of_slak(tmp_path, small_kernel, merged):
    from plugconv_mm.checkpoint import convert_official
    whole = MODELS.build(SLAK | dict(decomposed=False, small_kernel=small_kernel))
    published = published_slak(whole, merged)
    for state, prefix in ((published, None), ({'model': published}, None),
                          (under('backbone.', published), 'backbone.')):
        converted = convert_official(state)
        assert converted.keys() == {key.replace('lkb_origin', 'large_conv').replace('lkb_reparam', 'large_conv')
                                    for key in published if not key.startswith(('norm.', 'head.'))}
        write_checkpoint(state, tmp_path / 'slak.pth')
        pretrained = dict(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'slak.pth'), prefix=prefix))
        ours = MODELS.build(SLAK | dict(decomposed=False, small_kernel=small_kernel, deploy=merged) | pretrained)
        ours.init_weights()
        x = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(x)[0], whole.eval()(x)[0], atol=1e-4, rtol=1e-4)
        with pytest.raises(CheckpointError, match=r"'stages.0.0.large_kernel.' are whole M×M kernels, .*"
                           r'decomposed=False .*LargeKernelConv2d.*, or take a checkpoint .* --Decom True'):
            MODELS.build(SLAK | pretrained).init_weights()
