"""Whole residual blocks in the place of, or beside, those of a model."""
import copy

import pytest
import torch
import torchvision
from torch import nn

from plugconv_mm.errors import PlugError
from plugconv_mm.plugging import BLOCKS, PluggedBlock, plug, unplug
from plugconv_mm.plugging.blocks import HorNetBlock

X = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
BLOCK = dict(type='plugconv_mm.HorNetBlock', layer_scale_init=1.)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=10, width_per_group=64).eval()


@pytest.mark.parametrize('own', [dict(), dict(order=2), dict(filter='gf', filter_size='auto'),
                                 dict(filter=dict(type='ParCHW2d', meta_size=6))])
def test_a_residual_block_starts_as_it_was(net, own):
    expected, keys = net(X), list(net.state_dict())
    rule = dict(target=r're:layer[34]\.1', to=BLOCK | own, start='residual')
    report = plug(net, [rule], input_size=X.shape[2:])
    assert report.plugged == ['layer3.1', 'layer4.1'] and isinstance(net.layer3[1], PluggedBlock)
    assert torch.equal(net(X), expected)
    other = copy.deepcopy(net)
    nn.init.constant_(net.layer3[1].gamma, 0.1)
    nn.init.constant_(net.layer4[1].gamma, 0.1)
    net.train()(X).square().sum().backward()
    assert [name for name, p in net.layer4[1].named_parameters() if p.grad is None] == []
    other.load_state_dict(net.state_dict())
    assert not torch.equal(other(X), expected)
    assert unplug(net) == report.plugged and list(net.state_dict()) == keys


def test_a_block_in_the_place_of_another(net):
    report = plug(net, [dict(target='layer3.1', to=BLOCK)], input_size=X.shape[2:])
    assert isinstance(net.layer3[1], HorNetBlock) and net.layer3[1].gamma1.shape == (256, )
    layer, = report.layers
    assert layer.macs_before == 2 * 256 * 256 * 9 * 4 * 6 + 2 * 256 * 4 * 6  # two convolutions and two norms
    assert 0 < layer.macs_after < layer.macs_before
    with pytest.raises(PlugError, match="unexpected keyword argument 'orders'"):
        plug(net, [dict(target='layer2.1', to=dict(BLOCK, orders=2))], input_size=X.shape[2:])


def test_the_table_is_complete():
    assert BLOCKS == {'HorNetBlock': HorNetBlock}


@pytest.mark.parametrize('rule, size, message', [
    (dict(target='layer3.0'), (64, 96), r'called with a map \(N, C, H, W\) alone and give one like it, and this makes '
                                        r'\(256, 4, 6\) of \(128, 8, 12\), the batch left out'),
    (dict(target='layer3.1'), None, 'give input_size'),
    (dict(target='layer3.1', start='embed'), (64, 96), "a block has no kernel .*: use start='residual'"),
    (dict(target=r're:layer3\.1.*'), (64, 96), r'means layer3\.1\.conv1, which is a part of layer3\.1, BasicBlock'),
    (dict(target='fc'), (64, 96), 'takes the place of blocks that are called with a map'),
    (dict(target='layer9'), (64, 96), "'layer9' means no module"),
])
def test_what_is_no_residual_block(net, rule, size, message):
    before = repr(net)
    with pytest.raises(PlugError, match=message):
        plug(net, [dict(to=BLOCK, **rule)], input_size=size)
    assert repr(net) == before


def test_blocks_that_do_not_fit_are_skipped(net):
    rule = dict(target='re:layer.*', where=dict(type='BasicBlock'), to=BLOCK, unfit='skip')
    report = plug(net, [dict(target='layer1.0', to=None), rule], input_size=X.shape[2:])
    assert report.plugged == ['layer1.1', 'layer2.1', 'layer3.1', 'layer4.1'] and len(report.layers) == 7
