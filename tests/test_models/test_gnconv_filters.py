"""Every mixer inside the gnConv of HorNet, HorFPN and HorUPerHead."""
import copy

import pytest
import torch
from torch import nn

import plugconv_mm  # noqa: F401  before mmdet, which looks for mmcv's operators while it is imported

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from plugconv_mm import ops  # noqa: E402
from plugconv_mm.analysis import measure  # noqa: E402
from plugconv_mm.checkpoint import convert_official  # noqa: E402
from plugconv_mm.engine.hooks import DynamicSparsityHook  # noqa: E402
from plugconv_mm.models.backbones import HorNet  # noqa: E402
from plugconv_mm.models.decode_heads import HorUPerHead  # noqa: E402
from plugconv_mm.models.necks import HorFPN  # noqa: E402
from plugconv_mm.plugging.convs import GnConv2d, HorGnConv2d  # noqa: E402

FILTERS = {
    '7x7': ('7x7', nn.Conv2d),
    'gf': ('gf', ops.GlobalLocalFilter),
    'k3': ('k3', nn.Conv2d),
    'k31': ('k31', nn.Conv2d),
    'parc-hw': (dict(type='ParCHW2d', meta_size=7), ops.ParCHW2d),
    'parc': (dict(type='plugconv_mm.ParC2d', direction='W'), ops.ParC2d),
    'decomposed': (dict(type='DecomposedLargeKernelConv2d', kernel_size=23), ops.DecomposedLargeKernelConv2d),
    'whole': (dict(type='LargeKernelConv2d', kernel_size=13, small_kernel=None), ops.LargeKernelConv2d),
    'dict-gf': (dict(type='GlobalLocalFilter', h=7, w=4), ops.GlobalLocalFilter),
    'kw': (dict(type='KWConv2d', kernel_size=5), ops.KWConv2d),
}
every_filter = pytest.mark.parametrize('name', FILTERS)
LARGE = ('decomposed', 'whole')


def hornet(filter, **arguments):
    torch.manual_seed(0)
    model = HorNet(dict(channels=[8, 16, 32, 64], depths=[1, 1, 1, 1], orders=[2, 3, 3, 2], filters=[filter] * 4,
                        filter_sizes=[(7, 4)] * 4), layer_scale_init=1., **arguments)
    model.init_weights()
    return model


def neck(filter, **arguments):
    return HorFPN([8, 16], 16, 3, filter=filter, **arguments)


def head(filter, **arguments):
    return HorUPerHead(in_channels=[8, 16], in_index=[0, 1], channels=16, num_classes=3, norm_cfg=dict(type='BN'),
                       filter=filter, **arguments)


def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 8, 15, 21, generator=generator), torch.randn(2, 16, 7, 11, generator=generator)


def gradients(outputs, module):
    sum((out * torch.randn_like(out)).sum() for out in outputs).backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    return {key: parameter.grad for key, parameter in module.named_parameters()}


@every_filter
def test_in_hornet(name):
    filter, kind = FILTERS[name]
    model = hornet(filter)
    assert all(isinstance(stage[0].gnconv.dwconv, kind) for stage in model.stages)
    outputs = model(torch.randn(2, 3, 71, 99))
    assert [tuple(out.shape) for out in outputs] == [(2, 8, 17, 24), (2, 16, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]
    got = gradients(outputs, model)
    assert all(got[key].abs().sum() > 0 for key in got if '.dwconv.' in key and key.endswith('weight'))
    assert convert_official(model.state_dict()).keys() == model.state_dict().keys()


@every_filter
@pytest.mark.parametrize('proj_out', [True, False])
def test_in_the_neck_and_the_head(name, proj_out):
    filter, kind = FILTERS[name]
    for module, gnconvs, sizes in ((neck(filter, proj_out=proj_out), 2, [(15, 21), (7, 11), (4, 6)]),
                                   (head(filter, proj_out=proj_out), 1, [(15, 21)])):
        module.init_weights()
        inside = [m for m in module.modules() if isinstance(m, ops.GnConv2d)]
        assert len(inside) == gnconvs and all(isinstance(m.dwconv, kind) and m.scale == 1 for m in inside)
        assert all(any(key.startswith('proj_out') for key in m.state_dict()) == proj_out for m in inside)
        outputs = module(maps())
        outputs = outputs if isinstance(outputs, tuple) else (outputs, )
        assert [tuple(out.shape[2:]) for out in outputs] == sizes
        gradients(outputs, module)
        state = {key: value for key, value in module.state_dict().items() if not key.startswith('conv_seg')}
        assert convert_official(state).keys() == state.keys()


@pytest.mark.parametrize('name', LARGE)
def test_deployed(name):
    model = hornet(FILTERS[name][0])
    image = torch.randn(2, 3, 64, 96)
    model(image)  # moves the running statistics
    model.eval()
    with torch.no_grad():
        want = model(image)
        state = ops.deploy_state_dict(model.state_dict())
        model.switch_to_deploy()
        torch.testing.assert_close(model(image), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dict(model.state_dict()), state)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert convert_official(state).keys() == state.keys()


@pytest.mark.parametrize('name', ['parc-hw', 'k31', *LARGE])
def test_recomputed(name):
    """With the batch norms of large kernels inside a block that is recomputed."""
    image, results = torch.randn(2, 3, 32, 32), []
    for with_cp in (False, True):
        model = hornet(FILTERS[name][0], with_cp=with_cp).train()
        torch.manual_seed(1)
        results.append((gradients(model(image), model), dict(model.named_buffers())))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('name', LARGE)
def test_the_sparsity_hook_finds_large_kernels(name):
    hook = DynamicSparsityHook(only_large_kernel=True)
    hook._model = hornet(FILTERS[name][0])
    expected = {key for key, value in hook._model.named_parameters() if '.dwconv.' in key and value.dim() == 4}
    assert expected and set(hook._find_parameters()) == expected


@every_filter
def test_flops(name):
    """Those of the filter beside the three layers of 1x1."""
    filter, _ = FILTERS[name]
    module, size = GnConv2d(16, filter=filter), (9, 12)
    inner, positions = 24, 9 * 12
    alone = measure(module.dwconv, size, inner)
    whole = measure(module, size, 16)
    assert whole.total_macs() == alone.total_macs() + positions * (16 * 32 + 8 * 16 + 16 * 16)
    assert whole.parc == alone.parc and bool(whole.parc) == name.startswith('parc')
    if name in ('7x7', 'k3', 'k31', 'whole', 'decomposed'):
        taps = {'7x7': 49, 'k3': 9, 'k31': 961, 'whole': 169, 'decomposed': 2 * 23 * 5}[name]
        assert alone.total_macs() == positions * inner * taps


@pytest.mark.parametrize('name', ['7x7', 'k31', 'gf', *LARGE])
def test_own_initialisation_and_that_of_the_neck(name):
    """``init_cfg`` for convolutions reaches all of the neck's, and none in a gnConv that a config names."""
    from mmengine.model import initialize
    for kind, reached in ((GnConv2d, False), (HorGnConv2d, True)):
        module = kind(8, 8, 3, padding=1, filter=FILTERS[name][0])
        before = copy.deepcopy(module.state_dict())
        initialize(nn.Sequential(module), dict(type='Constant', layer='Conv2d', val=0.5, bias=0.25))
        kernels = [key for key, value in before.items() if value.dim() == 4 and 'complex' not in key]
        assert any('dwconv' in key for key in kernels)
        for key in kernels:
            after = module.state_dict()[key]
            assert (after == 0.5).all() if reached else torch.equal(after, before[key]), key


def test_a_subclass_of_a_convolution_stays_one():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    module = GnConv2d(8, filter=lambda c: Doubled(c, c, 3, padding=1, groups=c))
    assert type(module.dwconv) is Doubled


@pytest.mark.parametrize('filter, message', [
    ('9x9', "unknown filter '9x9': choose one of '7x7', 'gf', a kernel size"),
    ('k8', "has a centre, got 'k8': choose for example 'k9'"),
    (dict(type='Conv2d'), "its type is one of .* ParCMixer, got 'Conv2d'"),
    (dict(type='ParC'), "got 'ParC'"),
    (dict(type='GnConv2d'), "got 'GnConv2d'"),
    (dict(kernel_size=3), 'got None'),
    (dict(type='KWConv2d', stride=2, padding=3), r'keeps the shape of its map, and KWConv2d made \(\d, 24, '),
    (dict(type='ParCHW2d', stride=2), 'filters 24 channels, for which .* stride=2'),
    (dict(type='DecomposedLargeKernelConv2d', kernel_size=50), 'must be odd .* got 50'),
    (dict(type='LargeKernelConv2d', large_kernel=50), 'must be odd .* got 50'),
])
def test_what_does_not_fit(filter, message):
    for make in (neck, head):
        with pytest.raises(ValueError, match=message):
            make(filter)(maps())
    with pytest.raises(ValueError, match=message):
        GnConv2d(16, filter=filter)(torch.rand(1, 16, 8, 8))
    with pytest.raises(ValueError, match=message.replace('24', '12')):  # of the first block
        hornet(filter)(torch.rand(1, 3, 64, 64))
