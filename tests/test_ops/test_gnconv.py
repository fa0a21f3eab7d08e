"""gnConv against its definition."""
import copy
import doctest
import pickle

import pytest
import torch
from random_state import randomise
from torch import nn

from plugconv_mm.ops import (
    DecomposedLargeKernelConv2d,
    GlobalLocalFilter,
    GnConv2d,
    LargeKernelConv2d,
    ParC2d,
    deploy_state_dict,
    gnconv,
    switch_to_deploy,
)

# What has the published names, and what may stand for it.
PUBLISHED = ['7x7', 'gf']
MIXERS = {
    'k5': 'k5', 'k31': 'k31', 'parc': dict(type='ParCHW2d', meta_size=5), 'parc-w': dict(type='ParC2d', direction='W'),
    'decomposed': dict(type='DecomposedLargeKernelConv2d', kernel_size=21),
    'whole': dict(type='LargeKernelConv2d', kernel_size=13),
    'dict-gf': dict(type='GlobalLocalFilter', h=5, w=3),
    'dilated': lambda c: nn.Conv2d(c, c, 9, padding=8, dilation=2, groups=c, bias=False),
    'pool': lambda c: nn.AvgPool2d(3, 1, 1),
}
FILTERS = [*PUBLISHED, *(pytest.param(filter, id=name) for name, filter in MIXERS.items())]


def defined_gnconv(module, x):
    widths = [module.out_channels // 2**(module.order - 1 - i) for i in range(module.order)]
    both = module.proj_in(x)
    q = module.dwconv(both[:, widths[0]:]) * module.scale
    g, start = both[:, :widths[0]] * q[:, :widths[0]], widths[0]
    for pw, width in zip(module.pws, widths[1:], strict=True):
        g = pw(g) * q[:, start:start + width]
        start += width
    return module.proj_out(g)


@pytest.mark.parametrize('filter, order', [
    *((filter, order) for filter in PUBLISHED for order in (1, 2, 3, 5)),
    *(pytest.param(filter, 3, id=name) for name, filter in MIXERS.items())])
@pytest.mark.parametrize('channels', [(32, 32), (12, 32)])
@pytest.mark.parametrize('evaluate', [True, False])
def test_gnconv_follows_its_definition(channels, order, filter, evaluate):
    module = randomise(GnConv2d(*channels, order=order, filter=filter, scale=1 / 3).double()).train(not evaluate)
    x = torch.randn(2, channels[0], 6, 9, dtype=torch.float64)
    expected = defined_gnconv(module, x)  # in training, batch norms take the statistics of the batch in either case
    with torch.set_grad_enabled(not evaluate):
        torch.testing.assert_close(module(x), expected)
    assert expected.shape == (2, channels[1], 6, 9)


@pytest.mark.parametrize('filter', PUBLISHED)
def test_names_are_the_published_ones(filter):
    module = GnConv2d(2048, 512, filter=filter, filter_size=(32, 17))
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    expected = {'proj_in.weight': (1024, 2048, 1, 1), 'proj_in.bias': (1024, ), 'proj_out.weight': (512, 512, 1, 1),
                'proj_out.bias': (512, ), 'pws.0.weight': (512, 256, 1, 1), 'pws.0.bias': (512, )}
    if filter == '7x7':
        expected |= {'dwconv.weight': (768, 1, 7, 7), 'dwconv.bias': (768, )}
    else:
        expected |= {'dwconv.complex_weight': (384, 32, 17, 2), 'dwconv.dw.weight': (384, 1, 3, 3)} | {
            f'dwconv.{norm}_norm.{leaf}': (768, ) for norm in ('pre', 'post') for leaf in ('weight', 'bias')}
    assert shapes == expected


@pytest.mark.parametrize('filter', [*PUBLISHED, 'k9', dict(type='ParCHW2d', meta_size=3)], ids=str)
@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_gradients(filter, scale):
    module = randomise(GnConv2d(4, filter=filter, filter_size=(2, 2), scale=scale).double())
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    for training in (True, False):
        module.train(training)
        names, values = zip(*module.named_parameters(), strict=True)
        assert torch.autograd.gradcheck(
            lambda x, *values, names=names: torch.func.functional_call(module, dict(zip(names, values, strict=True)),
                                                                       (x, )), (x, *values), fast_mode=True)


@pytest.mark.parametrize('filter', FILTERS)
def test_layout_batch_and_memory_do_not_matter(filter):
    torch.manual_seed(0)
    module = GnConv2d(16, order=3, filter=filter).eval()
    x = torch.randn(3, 16, 11, 13)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), expected)
        torch.testing.assert_close(module(x.transpose(2, 3).contiguous().transpose(2, 3)), expected)
        torch.testing.assert_close(torch.cat([module(one[None]) for one in x]), expected)
        assert not x.isnan().any()
    with torch.inference_mode():
        torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x), expected)  # with gradients, after inference mode
    module.to(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize('filter', FILTERS)
def test_the_input_is_left_alone(filter):
    module, x = GnConv2d(8, filter=filter).eval(), torch.randn(1, 8, 6, 6)
    before = x.clone()
    with torch.no_grad():
        module(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize('filter', FILTERS)
@pytest.mark.parametrize('training', [True, False])
def test_autocast(filter, training):
    torch.manual_seed(0)
    module = GnConv2d(16, filter=filter).train(training)
    x = torch.randn(2, 16, 12, 15)
    with torch.autocast('cpu', torch.bfloat16), torch.set_grad_enabled(training):
        y = module(x)
    assert y.dtype == torch.bfloat16
    expected = module(x)
    assert (y - expected).std() < 0.02 * expected.std()
    if training:
        y.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize('filter', FILTERS)
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_data_types(filter, dtype):
    module = GnConv2d(16, filter=filter).to(dtype).eval()
    with torch.no_grad():
        y = module(torch.randn(1, 16, 12, 15, dtype=dtype))
    assert y.dtype == dtype and y.isfinite().all()


@pytest.mark.parametrize('filter', FILTERS)
def test_copies_and_pickles(filter):
    module, x = randomise(GnConv2d(8, filter=filter)).eval(), torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        expected = module(x)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)
            randomise(twin, seed=1)
            assert not torch.allclose(twin(x), expected)
        torch.testing.assert_close(module(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize('arguments, message', [
    (dict(in_channels=6, order=3), r'order 3 halves its width 2 times and cannot do so with 6 channels.*multiple of 4'),
    (dict(in_channels=5), 'cannot do so with 5 channels: pass a multiple of 2'),
    (dict(in_channels=8, out_channels=0), 'with 0 channels'),
    (dict(in_channels=8, order=0), 'order of a gnConv is 1 or more, got 0'),
    (dict(in_channels=8, filter='9x9'), "unknown filter '9x9': choose one of '7x7', 'gf', a kernel size such as 'k5'"),
    (dict(in_channels=8, filter=9), 'unknown filter 9: choose one of'),
    (dict(in_channels=8, filter='k4'), "odd, so that it has a centre, got 'k4': choose for example 'k5'"),
    (dict(in_channels=8, filter='k0'), "got 'k0': choose for example 'k1'"),
    (dict(in_channels=8, filter=dict(type='Conv2d')), "its type is one of Decomposed.*, ParCHW2d, got 'Conv2d'"),
    (dict(in_channels=8, filter=dict(kernel_size=3)), 'got None'),
    (dict(in_channels=8, filter=dict(type='DecomposedLargeKernelConv2d', kernel_size=50)), 'must be odd.*, got 50'),
    (dict(in_channels=8, filter=dict(type='ParC2d', size=7)), "filters 12 channels, for which .*argument 'size'"),
    (dict(in_channels=12, order=3, filter=dict(type='ParCHW2d')),
     'order 3 with 12 channels filters 21 channels, for which its filter cannot be made: .* got 21'),
    (dict(in_channels=8, filter=lambda c: c), 'made 12 from 12 channels, expected an nn.Module'),
    (dict(in_channels=8, filter='gf', filter_size=(0, 4)), 'got h=0, w=4'),
    (dict(in_channels=4, order=3, filter='gf'), 'halves the 7 channels.*a multiple of 8 channels'),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GnConv2d(**arguments)


@pytest.mark.parametrize('make', [lambda: GnConv2d(4), lambda: GnConv2d(4, filter='gf'), lambda: GlobalLocalFilter(4)])
@pytest.mark.parametrize('x, message', [
    (torch.zeros(1, 4, 5, 5, dtype=torch.long), 'floating-point tensor, got torch.int64'),
    (torch.zeros(1, 4, 5, 5, dtype=torch.complex64), 'floating-point tensor, got torch.complex64'),
    (torch.zeros(1, 6, 5, 5), r'built for 4 channels, got 6 in shape \(1, 6, 5, 5\)'),
    (torch.zeros(4, 5, 5), r'takes a \(N, C, H, W\) tensor, got shape \(4, 5, 5\)'),
    (torch.zeros(1, 4, 0, 5), 'at least 1x1'),
])
def test_wrong_input(make, x, message):
    with pytest.raises(ValueError, match=message):
        make()(x)


@pytest.mark.parametrize('make', [lambda c: nn.Conv2d(c, c, 3), lambda c: nn.Conv2d(c, c, 3, 2, 1),
                                  lambda c: nn.Conv2d(c, c // 2, 1), lambda c: nn.AvgPool2d(2)])
def test_filters_that_change_the_shape(make):
    with pytest.raises(ValueError, match=r'filter of a gnConv keeps the shape .* made \(1, \d+, .* of \(1, 6, 8, 8\)'):
        GnConv2d(4, filter=make)(torch.rand(1, 4, 8, 8))


@pytest.mark.parametrize('filter', FILTERS)
@pytest.mark.parametrize('order', [1, 2, 4])
def test_without_an_output_projection(filter, order):
    module = randomise(GnConv2d(8, 16, order=order, filter=filter, proj_out=False).double()).eval()
    assert not any(key.startswith('proj_out') for key in module.state_dict())
    x = torch.randn(2, 8, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        expected = defined_gnconv(module, x)
        torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x), expected)
    module.proj_out.register_forward_hook(lambda layer, args, out: out * 2)
    torch.testing.assert_close(module(x), 2 * expected)


@pytest.mark.parametrize('filter', FILTERS)
def test_gradients_reach_every_parameter(filter):
    module = randomise(GnConv2d(8, order=3, filter=filter, scale=1 / 3).double())
    x, of_output = torch.randn(2, 2, 8, 9, 7, dtype=torch.float64)
    names, parameters = zip(*module.named_parameters(), strict=True)
    got, want = (torch.autograd.grad(y, parameters, of_output) for y in (module(x), defined_gnconv(module, x)))
    torch.testing.assert_close(got, want)
    assert all(grad.abs().sum() > 0 for grad in got), names


@pytest.mark.parametrize('kind, kernels', [(DecomposedLargeKernelConv2d, 2), (LargeKernelConv2d, 1)])
def test_large_kernels_inside_are_deployed(kind, kernels):
    module = GnConv2d(8, order=3, scale=1 / 3, filter=dict(type=kind.__name__, kernel_size=13)).double()
    module(torch.randn(2, 8, 9, 7, dtype=torch.float64))  # moves the running statistics
    module.eval()
    x = torch.randn(2, 8, 11, 14, dtype=torch.float64)
    want, state = defined_gnconv(module, x), deploy_state_dict(module.state_dict())
    switch_to_deploy(module)
    assert sum(isinstance(m, nn.Conv2d) and m.groups > 1 for m in module.modules()) == kernels
    torch.testing.assert_close(module(x), want)
    torch.testing.assert_close(dict(module.state_dict()), state)


def test_kernels_inside_are_kept_until_weights_change():
    module = randomise(GnConv2d(8, filter=dict(type='ParC2d', direction='H', meta_size=5))).double().eval()
    assert isinstance(module.dwconv, ParC2d)
    x = torch.randn(1, 8, 9, 7, dtype=torch.float64)
    with torch.no_grad():
        before = module(x)
        assert len(module.dwconv._cache) == 1
        module.dwconv.weight.mul_(2)
        after = module(x)
        torch.testing.assert_close(after, defined_gnconv(module, x))
        assert not torch.allclose(after, before)


@pytest.mark.slow
@pytest.mark.parametrize('filter', PUBLISHED)
def test_torch_compile(filter):
    module, x = GnConv2d(8, filter=filter).eval(), torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(module, backend='aot_eager')(x), module(x))


def test_examples():
    tested = doctest.testmod(gnconv)
    assert tested.attempted and not tested.failed
