"""Operators plugged into the networks of other libraries: they start as they were, and all that is new is trained."""
import copy

import pytest
import torch

from plugconv_mm.plugging import PluggedConv2d, plug, unplug

timm = pytest.importorskip('timm')
torchvision = pytest.importorskip('torchvision')

TORCHVISION = ['resnet18', 'mobilenet_v2', 'shufflenet_v2_x0_5', 'efficientnet_b0', 'convnext_tiny', 'densenet121',
               'vgg11_bn', 'mnasnet0_5', 'squeezenet1_1', 'regnet_y_400mf', 'mobilenet_v3_small', 'googlenet']
TIMM = ['resnest14d', 'mobilenetv3_small_050', 'convnext_atto', 'ghostnet_050', 'repvgg_a0', 'lcnet_050', 'seresnet50',
        'resnext50_32x4d', 'res2net50_26w_4s', 'skresnet18', 'ecaresnet26t', 'mobilenetv4_conv_small', 'mixnet_s',
        'efficientnet_lite0', 'hardcorenas_a', 'convnextv2_atto', 'regnetz_b16', 'nfnet_l0', 'hrnet_w18_small', 'dla34',
        'cspdarknet53', 'vovnet39a', 'rexnet_100', 'repghostnet_050', 'starnet_s1', 'edgenext_xx_small',
        'inception_next_atto', 'tresnet_m']
OPERATORS = [dict(type='ParCHW2d', meta_size='auto'), dict(type='GnConv2d'),
             dict(type='GlobalLocalFilter', h='auto', w='auto'),
             dict(type='DecomposedLargeKernelConv2d', large_kernel=13), dict(type='KWConv2d')]


def build(library, name):
    torch.manual_seed(0)
    if library == 'timm':
        return timm.create_model(name).eval()
    options = dict(init_weights=False, aux_logits=False) if name == 'googlenet' else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


def networks():
    for library, names, quick in (('torchvision', TORCHVISION, 4), ('timm', TIMM, 4)):
        for i, name in enumerate(names):
            yield pytest.param(library, name, marks=[] if i < quick else pytest.mark.slow, id=f'{library}-{name}')


@pytest.mark.parametrize('library, name', networks())
def test_a_network_starts_as_it_was(library, name):
    model, images = build(library, name), torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images)
    plugged = 0
    for operator in OPERATORS:
        changed = copy.deepcopy(model)
        # The last layers of each stage, which shows as much as all of them.
        report = plug(changed, [dict(target='re:.*', where=dict(stride=1, last=1), to=operator, start='residual',
                                     unfit='skip')], input_size=(64, 96))
        plugged += len(report.plugged)
        with torch.no_grad():
            assert torch.equal(changed(images), before), operator
        if not report.plugged:
            continue
        changed.load_state_dict(copy.deepcopy(changed).state_dict())
        _assert_trains(changed, images, {name for name in report.plugged})
        assert set(unplug(changed)) >= set(report.plugged)
        assert changed.state_dict().keys() == model.state_dict().keys()
    assert plugged


def _assert_trains(model, images, names):
    """All that is new has gradients once gamma has changed, where it has an influence on the output."""
    for name in names:
        torch.nn.init.constant_(model.get_submodule(name).gamma, 0.1)
    model.train()
    out = model(images)
    sum(part.float().square().sum() for part in ([out] if torch.is_tensor(out) else out)).backward()
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, PluggedConv2d) and layer.gamma.grad is not None, name
        without = [key for key, parameter in layer.new.named_parameters() if parameter.grad is None]
        assert not without, (name, without)
