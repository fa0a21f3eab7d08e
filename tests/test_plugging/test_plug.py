"""Operators plugged into models: which layers get them, what the model computes then, and how to undo it."""
import copy
import pickle

import pytest
import torch
from torch import nn

import plugconv_mm
from plugconv_mm.errors import PlugError
from plugconv_mm.ops import KernelWarehouse, KWConv2d
from plugconv_mm.plugging import CONVS, PluggedConv2d, Rule, plug, unplug
from plugconv_mm.plugging.rules import stage_of

OPERATORS = {  # and whether they replace depthwise convolutions only
    'ParCHW2d': (dict(meta_size='auto'), False),
    'ParCMixer': (dict(meta_size='auto'), True),
    'ParC2d': (dict(meta_size=7, direction='W'), False),
    'GnConv2d': (dict(order=2), False),
    'GlobalLocalFilter': (dict(h='auto', w='auto'), True),
    'DecomposedLargeKernelConv2d': (dict(large_kernel=13), True),
    'LargeKernelConv2d': (dict(large_kernel=13), True),
    'KWConv2d': (dict(share='stage', cell_num_ratio=1), False),
}


class Net(nn.Module):
    """Two stages of blocks with a 1x1, a 3x3 and a depthwise 3x3 convolution; the first block of each is strided."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.stages = nn.ModuleList(nn.ModuleList(nn.ModuleDict(dict(
            one=nn.Conv2d(8, 8, 1), conv=nn.Conv2d(8, 8, 3, 1 + (i == 0), 1, bias=False), norm=nn.BatchNorm2d(8),
            depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8))) for i in range(3)) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            for block in stage:
                y = block['norm'](block['conv'](block['one'](x)))
                x = y + block['depthwise'](y).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


X = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def rule_of(operator, **changes):
    own, is_depthwise = OPERATORS[operator]
    target = 're:stages.*depthwise' if is_depthwise else 're:stages.*conv'
    return dict(dict(target=target, where=dict(stride=1), start='residual',
                     to=dict(type=f'plugconv_mm.{operator}', **own)), **changes)


def test_every_operator_is_tried():
    assert set(OPERATORS) == set(CONVS)


@pytest.mark.parametrize('operator', OPERATORS)
def test_a_residual_starts_as_the_model_was(net, operator):
    expected, names = net(X), [name for name, _ in net.named_parameters()]
    report = plugconv_mm.plug(net, [rule_of(operator)], input_size=(48, 64))
    assert isinstance(report, plugconv_mm.PlugReport)
    assert all(isinstance(net.get_submodule(name), PluggedConv2d) for name in report.plugged)
    assert len(report.plugged) == (6 if OPERATORS[operator][1] else 4)
    assert torch.equal(net(X), expected)
    untouched = [name for name in names if not name.startswith(tuple(report.plugged))]
    assert set(untouched) < {name for name, _ in net.named_parameters()}
    assert torch.equal(copy.deepcopy(net)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(X), expected)


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_strides_are_those_of_the_layer(net, operator, memory_format):
    """By them the next layer chooses its algorithm, and so its rounding; those of a 1x1 map are open."""
    plug(net, [rule_of(operator)], input_size=(48, 64))
    net.to(memory_format=memory_format)
    for layer in net.modules():
        for size in ((1, 1), (1, 3), (3, 4)):
            if isinstance(layer, PluggedConv2d):
                x = torch.rand(2, 8, *size).to(memory_format=memory_format)
                assert layer(x).stride() == layer.base(x).stride()


@pytest.mark.parametrize('start', ['residual', 'scratch'])
@pytest.mark.parametrize('operator', OPERATORS)
def test_everything_new_is_trained_and_saved(net, operator, start):
    plug(net, [rule_of(operator, start=start)], input_size=(48, 64))
    other = Net()
    plug(other, [rule_of(operator, start=start)], input_size=(48, 64))
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(X).square().mean().backward()
        optimizer.step()
    still = [name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert [name for name in still if not name.endswith(('one.bias', 'bn.bias', 'post_norm.bias'))] == []
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other.eval()(X), net.eval()(X))


@pytest.mark.parametrize('operator', OPERATORS)
def test_a_residual_can_be_taken_out(net, operator):
    expected, state = net(X), net.state_dict()
    names = plug(net, [rule_of(operator)], input_size=(48, 64)).plugged
    for name in names:
        nn.init.ones_(net.get_submodule(name).gamma)
    assert not torch.equal(net(X), expected)
    assert unplug(net) == names and unplug(net) == []
    assert torch.equal(net(X), expected)
    assert net.state_dict().keys() == state.keys()
    plug(net, [rule_of(operator)], input_size=(48, 64))  # again


def test_weights_of_the_model_as_it_was_are_loaded(net):
    source = Net()
    nn.init.normal_(source.stages[1][1]['conv'].weight)
    plug(net, [rule_of('ParCHW2d')], input_size=(48, 64))
    found = net.load_state_dict(source.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(key.rpartition('.')[2] == 'gamma' or '.new.' in key for key in found.missing_keys)
    assert torch.equal(net(X), source.eval()(X))


def test_a_plugged_layer_has_the_attributes_of_the_layer(net):
    plug(net, [rule_of('ParCHW2d')], input_size=(48, 64))
    layer = net.stages[0][1]['conv']
    assert (layer.in_channels, layer.kernel_size, layer.bias) == (8, (3, 3), None)
    assert layer.weight is layer.base.weight
    with pytest.raises(AttributeError, match='nothing'):
        _ = layer.nothing


def test_auto_is_the_size_of_the_map(net):
    plug(net, [rule_of('ParCHW2d'), rule_of('GlobalLocalFilter')], input_size=(96, 64))
    assert net.stages[0][1]['conv'].new.parc_h.weight.shape[2] == 24
    assert net.stages[1][2]['conv'].new.parc_w.weight.shape[3] == 12
    assert net.stages[0][0]['depthwise'].new.complex_weight.shape[1:3] == (24, 9)


# -- rules

def plugged(net, *rules):
    return plug(net, rules, input_size=(48, 64), dry_run=True).plugged


PARC = dict(type='ParCHW2d')


@pytest.mark.parametrize('rules, expected', [
    ([dict(target='stages.0.1.conv', to=PARC)], ['stages.0.1.conv']),
    ([dict(target=r're:stages\.\d\.1\.conv', to=PARC)], ['stages.0.1.conv', 'stages.1.1.conv']),
    ([dict(target=lambda name, module: module.stride == (1, 1) and 'conv' in name and '.1.1.' in name, to=PARC)],
     ['stages.1.1.conv']),
    ([dict(target='re:stages.*', where=dict(kernel_size=3, stride=1, groups=1), exclude=r're:.*\.2\..*', to=PARC)],
     ['stages.0.1.conv', 'stages.1.1.conv']),
    ([dict(target='re:stages.*', where=dict(kernel_size=(3, 3), stride=1, groups=1), to=PARC,
           exclude=['stages.0.1.conv', 'stages.1.1.conv'])], ['stages.0.2.conv', 'stages.1.2.conv']),
    ([dict(target='re:.*', where=dict(groups='depthwise'), exclude=r're:stages\.0.*', to=PARC)],
     [f'stages.1.{i}.depthwise' for i in range(3)]),
    ([dict(target='re:.*conv', where=dict(type='Conv2d', in_channels=8, out_channels=8, stride=1, last=1), to=PARC)],
     ['stages.0.2.conv', 'stages.1.2.conv']),
    ([dict(target='stages.0.1.conv', to=None), dict(target=r're:stages\.\d\.1\.conv', to=PARC)], ['stages.1.1.conv']),
    ([dict(target='re:.*', where=dict(kernel_size=3), to=PARC, unfit='skip')],
     [f'stages.{s}.{i}.{kind}' for s in range(2) for i in range(3) for kind in ('conv', 'depthwise')
      if (i, kind) != (0, 'conv')]),
], ids=['name', 're', 'function', 'exclude', 'excludes', 'depthwise', 'last', 'none', 'skip'])
def test_which_layers_are_meant(net, rules, expected):
    assert plugged(net, *rules) == expected


def test_the_first_rule_that_means_a_layer_counts(net):
    plug(net, [dict(target='stages.0.1.conv', to=dict(type='GnConv2d')), Rule(r're:stages\.0\.[12]\.conv', PARC)])
    assert type(net.stages[0][1]['conv']).__name__ == 'GnConv2d'
    assert type(net.stages[0][2]['conv']).__name__ == 'ParCHW2d'


def test_a_function_makes_the_operator(net):

    def wide(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias):
        return nn.Conv2d(in_channels, out_channels, 7, padding=3, groups=groups, bias=bias)

    report = plug(net, [dict(target='stages.0.1.depthwise', to=wide, start='residual')])
    assert net.stages[0][1]['depthwise'].new.kernel_size == (7, 7) and report.layers[0].new == 'Conv2d + Conv2d'


@pytest.mark.parametrize('name, stage', [
    ('backbone.layer4.2.conv2', 'backbone.layer4'), ('stages.3.2.dwconv', 'stages.3'), ('conv1', ''),
    ('neck.fpn_convs.0.conv', 'neck.fpn_convs'), ('rpn_head.rpn_conv', 'rpn_head')])
def test_the_stage_of_a_layer(name, stage):
    assert stage_of(name) == stage


# -- shared warehouses

@pytest.mark.parametrize('share, groups', [('stage', 2), ('model', 1), (None, 4)])
def test_layers_share_warehouses(net, share, groups):
    to = dict(type='KWConv2d', cell_num_ratio=0.5) | (dict(share=share) if share else {})
    report = plug(net, [rule_of('KWConv2d', start='scratch', to=to)])
    warehouse, = (module for module in net.modules() if isinstance(module, KernelWarehouse))
    assert len(warehouse.weights) == groups
    layers = [module for module in net.modules() if isinstance(module, KWConv2d)]
    assert layers[0].own_warehouse is warehouse and not any(layer.own_warehouse for layer in layers[1:])
    assert len(layers) == 4 and all(layer.warehouse is warehouse for layer in layers)
    copied = copy.deepcopy(net)
    assert len({module.warehouse for module in copied.modules() if isinstance(module, KWConv2d)} - {warehouse}) == 1
    assert sum(layer.after for layer in report.layers) == sum(
        p.numel() for module in layers for p in module.parameters())


def test_a_warehouse_leaves_with_its_layers(net):
    plug(net, [rule_of('KWConv2d')])
    unplug(net)
    assert not any(isinstance(module, KernelWarehouse) for module in net.modules())


# -- what is refused

@pytest.mark.parametrize('rules, message', [
    ([dict(target='stages.0.1.konv', to=PARC)], "'stages.0.1.konv' means no convolution. Convolutions of the model "
                                                r'are, for example, .*stages\.0\.1\.conv'),
    ([dict(target='head', to=PARC)], 'means no convolution: head is a Linear'),
    ([dict(target='re:stages.*', where=dict(kernel_size=5), to=PARC)],
     r"where=\{'kernel_size': 5\} leaves out stages\.0\.0\.one"),
    ([dict(target='stem', to=None), dict(target='stem', to=PARC)], 'that an earlier rule has not taken'),
    ([dict(target='stem', to=PARC)], r'cannot plug ParCHW2d into stem, Conv2d 3x3 \(3 to 8 channels, stride 2x2\): '
                                     "ParCHW2d gives a map of the size of its input.*unfit='skip'"),
    ([dict(target='stages.0.1.conv', to=dict(type='GlobalLocalFilter'))], 'replaces depthwise convolutions only'),
    ([dict(target='stages.0.1.conv', to=dict(type='Conv3d'))], "a type of DecomposedLarge.*, got 'Conv3d'"),
    ([dict(target='stages.0.1.conv', to=dict(type='ParCHW2d', meta=3))], "argument 'meta'"),
    ([dict(target='stem', to=PARC, where=dict(size=3))], 'where knows type, .*, got size'),
    ([dict(target='stem', to=PARC, start='later')], "one of scratch, residual, embed, got 'later'"),
    ([dict(target='stem', to=PARC, unfit='ignore')], "error or skip, got 'ignore'"),
    ([dict(target='stem')], 'a rule has target and to, and may have exclude, where, start, unfit; got target'),
    ([dict(target='re:.*conv', to=dict(type='KWConv2d', share='layer'))], "share='stage' or 'model'"),
    ([dict(target='stages.0.1.conv', to=dict(type='ParCHW2d', meta_size='auto'))], "meta_size='auto' needs input_size"),
])
def test_rules_that_cannot_be_applied(net, rules, message):
    before = repr(net)
    with pytest.raises(PlugError, match=message):
        plug(net, rules)
    assert repr(net) == before


def test_a_plugged_model_is_not_plugged_again(net):
    plug(net, [rule_of('ParCHW2d'), rule_of('GlobalLocalFilter', start='scratch')], input_size=(48, 64))
    for rule in (rule_of('GnConv2d'), rule_of('GlobalLocalFilter')):
        with pytest.raises(PlugError, match='that is not plugged already: unplug the model first'):
            plug(net, [rule])


def test_frozen_layers(net):
    net.stages[0].requires_grad_(False)
    with pytest.raises(PlugError, match='stages.0.1.conv, .*: it is frozen'):
        plug(net, [rule_of('GnConv2d')])
    report = plug(net, [rule_of('GnConv2d', unfit='skip')])
    assert report.plugged == ['stages.1.1.conv', 'stages.1.2.conv']
    assert 'skipped: it is frozen' in str(report)


def test_one_module_under_two_names_stays_one(net):
    net.stages[1][1]['conv'] = net.stages[0][1]['conv']
    expected = net(X)
    report = plug(net, [rule_of('ParCHW2d', to=dict(type='ParCHW2d', meta_size=9))])
    assert net.stages[1][1]['conv'] is net.stages[0][1]['conv'] and len(report.plugged) == 4
    assert torch.equal(net(X), expected)
    assert [layer.after > 0 for layer in report.layers] == [True, True, False, True]
    unplug(net)
    assert net.stages[1][1]['conv'] is net.stages[0][1]['conv']
    with pytest.raises(PlugError, match='works on 6x8 and 12x16: give meta_size a number'):
        plug(net, [rule_of('ParCHW2d')], input_size=(48, 64))


class Switched(nn.Conv2d):
    """A convolution with one inside, as the switchable atrous convolution of DetectoRS."""

    def __init__(self):
        super().__init__(8, 8, 3, padding=1)
        self.switch = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return super().forward(x) * self.switch(x).sigmoid()


def test_a_convolution_inside_another(net):
    net.stages[1][1]['conv'] = Switched()
    names = [f'stages.1.1.conv{inner}' for inner in ('', '.switch')]
    expected, state = net(X), net.state_dict()
    rule = dict(target='re:' + '|'.join(names), to=dict(type='ParCHW2d', meta_size=7), start='residual')
    assert plug(net, [rule]).plugged == names
    assert torch.equal(net(X), expected)
    found = net.load_state_dict(state, strict=False)
    assert not found.unexpected_keys and not [key for key in found.missing_keys if '.new.' not in key
                                              and not key.endswith('.gamma')]
    for name in names:
        nn.init.ones_(net.get_submodule(name).gamma)
    net(X).sum().backward()
    assert all(parameter.grad is not None for name, parameter in net.named_parameters() if '.new.' in name)
    assert unplug(net) == names
    assert torch.equal(net(X), expected) and net.state_dict().keys() == state.keys()
    with pytest.raises(PlugError, match=r'means stages\.1\.1\.conv\.switch, which is a part of stages\.1\.1\.conv, '
                                        'Switched 3x3 .* exclude one of them'):
        plug(net, [dict(rule, start='scratch')])


class PadsItself(nn.Conv2d):
    """A convolution that pads as TensorFlow's do, as those of EfficientNets."""

    def forward(self, x):
        extra = [max((-(-n // s) - 1) * s + k - n, 0)
                 for n, s, k in zip(x.shape[:1:-1], self.stride, self.kernel_size, strict=True)]
        return super().forward(nn.functional.pad(x, [side for e in extra for side in (e // 2, e - e // 2)]))


@pytest.mark.parametrize('operator', ['ParCHW2d', 'GnConv2d', 'KWConv2d'])
def test_a_convolution_that_pads_in_its_forward(net, operator):
    net.stages[1][1]['conv'] = PadsItself(8, 8, 3)
    expected = net(X)
    assert 'stages.1.1.conv' in plug(net, [rule_of(operator)], input_size=(48, 64)).plugged
    assert torch.equal(net(X), expected)


def test_a_stride_of_a_convolution_that_pads_in_its_forward(net):
    net.stem = PadsItself(3, 8, 3, stride=2)
    with pytest.raises(PlugError, match='its forward pads by itself, and makes a map of 64x63 one of 32x32, where its '
                                        'stride and padding say 31x31'):
        plug(net, [dict(target='stem', to=dict(type='KWConv2d'), start='residual')])


class Decomposition(nn.Module):
    """A module that uses the weight of its convolution, and does not call it, as the task decomposition of TOOD."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        assert self.conv.weight.dtype == x.dtype
        return nn.functional.conv2d(x, self.conv.weight * 2, padding=1)


def test_a_weight_that_another_module_uses(net):
    net.stages[1][1]['conv'] = Decomposition()
    with pytest.raises(PlugError, match=r'into stages\.1\.1\.conv\.conv, .* its weight is used by another module'):
        plug(net, [rule_of('KWConv2d')], input_size=(48, 64))
    report = plug(net, [rule_of('KWConv2d', unfit='skip')], input_size=(48, 64))
    assert report.plugged == ['stages.0.1.conv', 'stages.0.2.conv', 'stages.1.2.conv']


class Masked(nn.Conv2d):
    """A convolution on a part of the map, as that of guided anchoring."""

    def forward(self, input, mask=None):
        return super().forward(input if mask is None else input * mask)


def test_a_convolution_that_takes_more_than_a_map(net):
    net.stem = Masked(3, 8, 3, padding=1)
    with pytest.raises(PlugError, match='it is called with input, mask, and operators work on a map alone'):
        plug(net, [dict(target='stem', to=dict(type='KWConv2d'), start='residual')])


def test_a_model_that_takes_more_than_images(net):
    def fail(*_):
        raise ValueError('no samples')

    net.register_forward_pre_hook(fail)
    with pytest.raises(PlugError, match='cannot be run on an image .* ValueError: no samples. Give numbers'):
        plug(net, [rule_of('ParCHW2d')], input_size=(48, 64))
    report = plug(net, [rule_of('ParCHW2d', unfit='skip')], input_size=(48, 64))
    assert not report.plugged and all('give meta_size a number' in layer.reason for layer in report.layers)


def test_a_weight_that_two_layers_have(net):
    net.stages[1][1]['conv'].weight = net.stages[0][1]['conv'].weight
    with pytest.raises(PlugError, match=r"its weights are those of stages\.1\.1\.conv, too: use start='residual'"):
        plug(net, [rule_of('GnConv2d', start='scratch')])
    expected = net(X)
    plug(net, [rule_of('GnConv2d')])
    assert torch.equal(net(X), expected)


def test_hooks_and_parametrisations_are_not_lost(net):
    called = []
    net.stages[0][1]['conv'].register_forward_hook(lambda *_: called.append(1))
    nn.utils.parametrizations.weight_norm(net.stages[1][1]['conv'])
    expected = net(X)
    with pytest.raises(PlugError, match='it has hooks or parametrisations'):
        plug(net, [rule_of('GnConv2d', start='scratch')])
    plug(net, [rule_of('GnConv2d')])
    assert torch.equal(net(X), expected) and len(called) == 2


def test_a_compiled_model_is_refused(net):
    with pytest.raises(PlugError, match='plug the operators into the model before it is compiled'):
        plug(torch.compile(net), [rule_of('GnConv2d')])
    with pytest.raises(PlugError, match='before it is compiled'):
        plug(torch.jit.trace(net, X), [rule_of('GnConv2d')])


@pytest.mark.filterwarnings('ignore:torch.ao.quantization is deprecated', 'ignore:.*reduce_range')
@pytest.mark.parametrize('converted, message', [
    (True, 'means no convolution: stages.0.1.conv is a quantised Conv2d: plug the operators in before'),
    (False, 'it is prepared for quantisation: plug the operators in before')])
def test_a_quantised_model_is_refused(net, converted, message):
    quantization = torch.ao.quantization
    net.qconfig = quantization.get_default_qat_qconfig()
    net = quantization.prepare_qat(net.train())
    if converted:
        net = quantization.convert(net.eval())
    with pytest.raises(PlugError, match=message):
        plug(net, [dict(target='stages.0.1.conv', to=dict(type='GnConv2d'), start='residual')])


def test_device_type_and_mode_are_those_of_the_layer(net):
    net = net.double().to('meta')
    plug(net, [rule_of('ParCHW2d'), rule_of('DecomposedLargeKernelConv2d')], input_size=(48, 64))
    assert {(p.device.type, p.dtype) for p in net.parameters()} == {('meta', torch.float64)}
    assert not any(module.training for module in net.modules())


def test_the_report(net):
    report = plug(net, [dict(target='re:.*', where=dict(stride=1, kernel_size=3, groups=1), to=PARC,
                             start='residual'), dict(target='stem', to=PARC, unfit='skip')], dry_run=True)
    assert not any(isinstance(module, PluggedConv2d) for module in net.modules())
    lines = str(report).splitlines()
    assert lines[0].split()[:3] == ['layer', 'was', 'is'] and lines[1].startswith('stem ')
    assert 'skipped: ParCHW2d gives a map of the size of its input' in lines[1]
    assert lines[2].startswith('stages.0.1.conv  Conv2d 3x3 (8 to 8 channels)')
    assert lines[-1].startswith('4 of 5 layers plugged, ')


@pytest.mark.parametrize('unfit', ['error', 'skip'])
def test_cells_that_would_fill_the_memory(net, unfit):
    """Kernels whose widths have little in common make cells of few channels, and attentions over all of them."""
    net.odd = nn.Sequential(nn.Conv2d(7, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1))
    with pytest.raises(PlugError, match=r"share the warehouse 'odd' .* 64 output and 1 input channels in common.*: let "
                                        'fewer layers share'):
        plug(net, [dict(target='re:odd.*', to=dict(type='KWConv2d', share='stage'), unfit=unfit)])
    plug(net, [dict(target='re:odd.*', to=dict(type='KWConv2d'))])
