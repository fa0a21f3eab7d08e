"""Kernels inside those of operators, and sums that become one layer again."""
import copy

import pytest
import torch
from torch import nn

from plugconv_mm.errors import PlugError
from plugconv_mm.ops import DecomposedLargeKernelConv2d, KernelWarehouse, switch_to_deploy
from plugconv_mm.plugging import PluggedConv2d, merge, plug, unplug

X = torch.randn(2, 8, 12, 10, generator=torch.Generator().manual_seed(0))


def net_of(kernel_size=3, groups=8, bias=True, padding_mode='zeros'):
    torch.manual_seed(0)
    padding = kernel_size // 2 if isinstance(kernel_size, int) else tuple(k // 2 for k in kernel_size)
    conv = nn.Conv2d(8, 8, kernel_size, padding=padding, groups=groups, bias=bias, padding_mode=padding_mode)
    return nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.BatchNorm2d(8)).eval()


def rule_of(to, start='embed', **others):
    return dict(target='1', to=to, start=start, **others)


def on_map(net, x):
    """The net without its first layer, which takes images alone."""
    return net[1:](x)


WHOLE = dict(type='LargeKernelConv2d', large_kernel=13)
THIN = dict(type='DecomposedLargeKernelConv2d', large_kernel=13)
EXACT = [
    (WHOLE, 3, 8), (WHOLE, 13, 8), (WHOLE, (1, 11), 8), (dict(WHOLE, small_kernel=None), 7, 8),
    (THIN, 5, 8), (THIN, (11, 3), 8), (THIN, (1, 11), 8), (dict(THIN, small_kernel=7), 7, 8),
    (dict(type='KWConv2d'), 3, 1), (dict(type='KWConv2d', cell_num_ratio=2), 3, 2), (dict(type='KWConv2d'), 1, 1),
    (dict(type='KWConv2d', cell_inplane_ratio=0.5), 3, 1),
]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('to, kernel_size, groups', EXACT)
@pytest.mark.parametrize('training', [False, True])
def test_an_embedded_kernel_computes_the_same_and_trains(to, kernel_size, groups, bias, training):
    net = net_of(kernel_size, groups, bias).train(training)
    expected = on_map(copy.deepcopy(net), X)
    report = plug(net, [rule_of(to)])
    assert report.plugged == ['1'] and not isinstance(net[1], PluggedConv2d)
    y = on_map(net, X)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    (y * torch.randn(y.shape)).sum().backward()
    if to['type'] != 'KWConv2d':  # whose attention has no gradient at temperature 1
        assert all(p.grad is not None and (training or p.grad.all()) for p in net[1].parameters())


def test_layers_that_share_a_warehouse_hold_their_kernels():
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(8, c, 3, padding=1) for c in (8, 8, 8, 24))).eval()
    expected = net(X)
    report = plug(net, [dict(target='re:.*', start='embed', to=dict(type='KWConv2d', share='model'))])
    torch.testing.assert_close(net(X), expected, atol=1e-5, rtol=1e-5)
    assert report.layers[0].start == 'embed, equal at temperature 1'
    warehouse, = (module for module in net.modules() if isinstance(module, KernelWarehouse))
    warehouse.set_temperature(0.5)
    assert not torch.allclose(net(X), expected, atol=1e-3)


@pytest.mark.parametrize('direction, kernel_size', [('H', (5, 1)), ('W', (1, 5)), ('H', 1), ('W', (1, 3))])
@pytest.mark.parametrize('groups', [1, 8])
def test_parc_holds_kernels_along_its_axis_but_for_the_border(direction, kernel_size, groups):
    net = net_of(kernel_size, groups)
    expected = net(torch.ones(1, 3, 12, 10)), on_map(net, X)
    report = plug(net, [rule_of(dict(type='ParC2d', direction=direction, meta_size='auto'))], input_size=X.shape[2:])
    half = max(net[1].kernel_size) // 2
    inner = slice(half, -half or None)
    inner = (..., inner, slice(None)) if direction == 'H' else (..., inner)
    y = on_map(net, X)
    torch.testing.assert_close(y[inner], expected[1][inner], atol=1e-5, rtol=1e-5)
    assert torch.allclose(y, expected[1], atol=1e-5) == (half == 0)
    what, length = ('rows', 12) if direction == 'H' else ('columns', 10)
    start = report.layers[0].start
    assert start.startswith('embed, equal but for ') and f'than {length}' in start
    assert (f'{half} {what} at either border' in start) == (half > 0)


@pytest.mark.parametrize('to, net, message', [
    (dict(WHOLE, large_kernel=5), dict(kernel_size=7), 'its kernel of 7x7 fits into none of 5x5: choose a larger'),
    (THIN, dict(kernel_size=7), 'its kernel of 7x7 fits into none of 13x5 and 5x13: choose a larger large_kernel, and'),
    (dict(type='GnConv2d'), dict(groups=1), "GnConv2d has no place for a kernel: start='embed' is for Large"),
    (dict(type='ParCHW2d'), dict(), 'ParCHW2d has no place for a kernel'),
    (dict(type='ParC2d', direction='H'), dict(), 'ParC along H holds kernels of up to 14x1 here, and its own is 3x3'),
    (dict(type='ParC2d', direction='W', meta_size=3), dict(kernel_size=(1, 5)), 'up to 1x3 here, and its own is 1x5'),
    (dict(type='KWConv2d', cell_num_ratio=0.5), dict(groups=1), 'fewer cells than its kernel: give cell_num_ratio 1'),
    (WHOLE, dict(padding_mode='reflect'), "padded with padding_mode='reflect', and the operator's with zeros"),
])
def test_kernels_without_a_place(to, net, message):
    net = net_of(**net)
    before = repr(net)
    with pytest.raises(PlugError, match=message):
        plug(net, [rule_of(to)])
    assert repr(net) == before
    if to['type'] != 'KWConv2d':
        assert message.split(':')[0].split(' holds')[0] in plug(net, [rule_of(to, unfit='skip')]).layers[0].reason


def test_an_embedded_kernel_is_no_residual():
    net = net_of()
    plug(net, [rule_of(WHOLE)])
    assert unplug(net) == [] and list(net[1].state_dict()) == ['large_conv.weight', 'large_conv.bias']


# -- merge

@pytest.mark.parametrize('to, kernel_size', [(WHOLE, 3), (WHOLE, 13), (THIN, 5), (THIN, (11, 3)), (THIN, (3, 11))])
@pytest.mark.parametrize('bias', [True, False])
def test_a_sum_with_a_large_kernel_becomes_one(to, kernel_size, bias):
    net = net_of(kernel_size, bias=bias)
    plug(net, [rule_of(to, 'residual')])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    net.train()(torch.randn(4, 3, 12, 10))  # statistics
    net.eval()
    expected = on_map(net, X)
    assert merge(net) == ['1'] and merge(net) == []
    assert {key.rpartition('.')[2] for key in net[1].state_dict()} == {'weight', 'bias'}
    torch.testing.assert_close(on_map(net, X), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('to, net', [
    (dict(type='ParCHW2d'), dict()), (dict(type='GnConv2d'), dict(groups=1)), (THIN, dict(kernel_size=7)),
    (WHOLE, dict(padding_mode='reflect'))])
def test_other_sums_stay(to, net):
    net = net_of(**net)
    plug(net, [rule_of(to, 'residual')])
    nn.init.normal_(net[1].gamma)
    expected = on_map(net, X)
    assert merge(net) == [] and isinstance(net[1], PluggedConv2d)
    torch.testing.assert_close(on_map(net, X), expected, atol=1e-4, rtol=1e-4)
    assert unplug(net) == ['1']


def test_one_sum_under_two_names_is_merged_once():
    net = net_of()
    net.append(net[1])
    plug(net, [dict(target='re:1|3', to=WHOLE, start='residual')])
    nn.init.normal_(net[1].gamma)
    expected = net(torch.ones(1, 3, 9, 9))
    assert merge(net) == ['1', '3'] and net[1] is net[3]
    torch.testing.assert_close(net(torch.ones(1, 3, 9, 9)), expected, atol=1e-4, rtol=1e-4)


def test_merging_after_the_operators_were_deployed():
    net = net_of()
    plug(net, [rule_of(THIN, 'residual')])
    nn.init.normal_(net[1].gamma)
    expected = on_map(net, X)
    switch_to_deploy(net)
    assert net[1].new.deployed and merge(net) == ['1'] and isinstance(net[1], DecomposedLargeKernelConv2d)
    torch.testing.assert_close(on_map(net, X), expected, atol=1e-4, rtol=1e-4)
