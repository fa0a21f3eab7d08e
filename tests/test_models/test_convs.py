"""The operators as convolutions of mmcv, in its ConvModule and in what mmdet and mmseg build from it."""
import copy
import pickle

import pytest
import torch

import plugconv_mm  # noqa: F401  before mmdet, which looks for mmcv's operators while it is imported

pytest.importorskip('mmcv')

from mmcv.cnn import ConvModule, build_conv_layer  # noqa: E402
from mmengine.model import BaseModule  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

from plugconv_mm import ops  # noqa: E402
from plugconv_mm.plugging import convs  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402

# type: what stands in the conv_cfg beside it, groups
CONVS = {
    'GnConv2d': (dict(order=3), 1),
    'GnConv2d-gf': (dict(filter='gf', filter_size=(5, 3)), 1),
    'ParC2d': (dict(), 1),
    'ParC2d-depthwise': (dict(direction='W', meta_size=7, position_embedding=False, backend='fft'), 8),
    'ParC2d-groups': (dict(meta_size=7, backend='gemm'), 2),
    'ParCHW2d': (dict(), 1),
    'ParCHW2d-depthwise': (dict(meta_size=5), 8),
    'ParCMixer': (dict(meta_size=5), 8),
    'GlobalLocalFilter': (dict(h=5, w=3), 8),
    'DecomposedLargeKernelConv2d': (dict(large_kernel=11), 8),
    'LargeKernelConv2d': (dict(large_kernel=11), 8),
    'KWConv2d': (dict(), 1),
    'KWConv2d-groups': (dict(), 2),
}


def conv_cfg(name):
    return dict(type=f'plugconv_mm.{name.partition("-")[0]}', **CONVS[name][0])


def backward(outputs, module):
    """Every parameter gets a gradient, not all of it zero."""
    torch.manual_seed(0)
    sum((o * torch.randn_like(o)).sum() for o in outputs).backward()
    for key, parameter in module.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0, key


@pytest.mark.parametrize('norm_cfg, act_cfg', [(None, None), (dict(type='BN'), dict(type='ReLU')),
                                               (dict(type='GN', num_groups=2), dict(type='GELU'))])
@pytest.mark.parametrize('name', CONVS)
def test_in_a_conv_module(name, norm_cfg, act_cfg):
    torch.manual_seed(0)
    module = ConvModule(8, 8, 3, padding=1, groups=CONVS[name][1], conv_cfg=conv_cfg(name), norm_cfg=norm_cfg,
                        act_cfg=act_cfg)
    conv = module.conv
    assert isinstance(conv, getattr(ops, name.partition('-')[0]))
    assert (module.in_channels, module.out_channels, module.stride, module.groups) == (8, 8, (1, 1), CONVS[name][1])
    assert (module.transposed, module.output_padding, module.dilation) == (False, (0, 0), (1, 1))
    x = torch.randn(2, 8, 9, 7)
    y = conv(x)
    y = y if norm_cfg is None else module.norm(y)
    y = y if act_cfg is None else module.activate(y)
    torch.testing.assert_close(module(x), y)
    backward([module(x)], module)
    module.eval()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN')])
@pytest.mark.parametrize('name', CONVS)
def test_no_samples(name, norm_cfg, training):
    module = ConvModule(8, 8, 3, padding=1, groups=CONVS[name][1], conv_cfg=conv_cfg(name), norm_cfg=norm_cfg)
    x = torch.rand(0, 8, 9, 7, requires_grad=True)
    y = module.train(training)(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), key


class Holder(BaseModule):
    """A module whose ``init_cfg`` goes to what it holds."""

    def __init__(self, module, init_cfg):
        super().__init__(init_cfg)
        self.module = module


def biases(module):
    return [key for key, _ in module.named_parameters() if key.endswith('bias')]


@pytest.mark.parametrize('name', ['ParC2d', 'ParC2d-depthwise', 'ParCHW2d', 'KWConv2d', 'GnConv2d'])
def test_bias_is_what_was_asked_for(name):
    without, with_bias = (build_conv_layer(conv_cfg(name), 8, 8, 3, padding=1, bias=bias, groups=CONVS[name][1])
                          for bias in (False, True))
    assert set(biases(with_bias)) - set(biases(without)) == {
        'ParCHW2d': {'parc_h.bias', 'parc_w.bias'}, 'GnConv2d': {'proj_out.bias'}}.get(name, {'bias'})


@pytest.mark.parametrize('arguments', [
    dict(kernel_size=3, padding=1), dict(kernel_size=(3, 5), padding=(1, 2)), dict(kernel_size=1),
    dict(kernel_size=[7, 7], padding=[3, 3]), dict(kernel_size=5, padding='same'),
    dict(kernel_size=1, padding='valid', stride=(1, 1))])
@pytest.mark.parametrize('name', ['GnConv2d', 'ParC2d', 'ParCHW2d'])
def test_whatever_keeps_the_size(name, arguments):
    conv = build_conv_layer(conv_cfg(name), 8, 8, **arguments)
    assert conv.kernel_size == torch.nn.Conv2d(8, 8, **arguments).kernel_size
    assert conv(torch.rand(1, 8, 6, 5)).shape == (1, 8, 6, 5)


@pytest.mark.parametrize('arguments, message', [
    (dict(stride=2), r'gives a map of the size of its input .* Got kernel_size=3, stride=2, padding=1'),
    (dict(stride=(1, 2)), r'stride=\(1, 2\)'),
    (dict(padding=0), 'padding=0'),
    (dict(padding='valid'), 'padding=valid'),
    (dict(kernel_size=(3, 5)), r'kernel_size=\(3, 5\)'),
    (dict(kernel_size=4), 'kernel_size=4'),
])
@pytest.mark.parametrize('name', [name for name in CONVS if '-' not in name and name != 'KWConv2d'])
def test_what_changes_the_size_is_refused(name, arguments, message):
    arguments = dict(kernel_size=3, padding=1, groups=CONVS[name][1]) | arguments
    with pytest.raises(ValueError, match=f'^{name} .*{message}'):
        build_conv_layer(conv_cfg(name), 8, 8, **arguments)


@pytest.mark.parametrize('arguments, message', [
    (dict(stride=2), 'stride 1'), (dict(groups=8), 'groups 1'), (dict(kernel_size=3, padding=0), '"same" padding')])
def test_gnconv_has_a_kernel_size_by_default(arguments, message):
    gnconv = MODELS.build(dict(type='GnConv2d', in_channels=8))
    assert gnconv.kernel_size == (7, 7) and gnconv(torch.rand(1, 8, 5, 6)).shape == (1, 8, 5, 6)
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='GnConv2d', in_channels=8, **arguments))


def test_the_operator_itself_takes_no_argument_of_a_convolution():
    for arguments in (dict(kernel_size=3), dict(stride=1), dict(padding=1), dict(groups=1)):
        with pytest.raises(TypeError, match='unexpected keyword argument'):
            ops.GnConv2d(8, 8, **arguments)
    with pytest.raises(TypeError, match='positional'):
        ops.GnConv2d(8, 8, 3)


def test_gnconv_by_its_class_in_a_conv_module():
    module = ConvModule(8, 16, 3, padding=1, conv_cfg=dict(type=convs.GnConv2d, order=3), norm_cfg=dict(type='BN'))
    assert isinstance(module.conv, ops.GnConv2d) and module.conv.proj_out.bias is None
    assert module(torch.randn(2, 8, 9, 7)).shape == (2, 16, 9, 7)
    with pytest.raises(ValueError, match='stride 1'):
        ConvModule(8, 16, 3, stride=2, padding=1, conv_cfg=dict(type=convs.GnConv2d))


@pytest.mark.parametrize('filter', ['7x7', 'gf'])
def test_init_cfg_reaches_the_gnconv_of_the_neck_alone(filter):
    """The neck draws its convolutions as published; a GnConv2d that a config names keeps its own initialisation."""
    init_cfg = dict(type='Constant', layer='Conv2d', val=0.5, bias=0.25)
    for kind, reached in ((convs.GnConv2d, False), (convs.HorGnConv2d, True)):
        gnconv = kind(8, 8, 3, padding=1, order=3, filter=filter)
        assert set(gnconv.state_dict()) == set(ops.GnConv2d(8, order=3, filter=filter).state_dict())
        before = copy.deepcopy(gnconv.state_dict())
        Holder(gnconv, init_cfg).init_weights()
        for key, value in gnconv.state_dict().items():
            plain = key.startswith(('proj_', 'pws.')) or (filter == '7x7' and key.startswith('dwconv.'))
            if plain and reached:
                assert (value == (0.5 if key.endswith('weight') else 0.25)).all(), key
            elif plain:
                assert torch.equal(value, before[key]), key


@pytest.mark.parametrize('name, arguments, message', [
    ('ParC2d', dict(out_channels=16), '^ParC2d has as many channels out as in, got 8 and 16'),
    ('ParCHW2d', dict(out_channels=4), 'got 8 and 4'),
    ('GlobalLocalFilter', dict(out_channels=16, groups=8), 'got 8 and 16'),
    ('DecomposedLargeKernelConv2d', dict(out_channels=16, groups=8), 'got 8 and 16'),
    ('ParC2d', dict(dilation=2, padding=2), 'cannot be dilated, got dilation=2'),
    ('DecomposedLargeKernelConv2d', dict(dilation=2, padding=2, groups=8), 'cannot be dilated'),
    ('GnConv2d', dict(groups=8), 'groups 1 only, got 8'),
    ('GnConv2d', dict(out_channels=6), 'order 3 .* with 6 channels'),
    ('ParC2d', dict(groups=3), 'groups must divide channels'),
    ('ParCHW2d', dict(groups=2), 'groups of 1 or 8 here, got groups=2'),
    ('ParCHW2d', dict(in_channels=7, out_channels=7), 'got 7, which two does not divide'),
    ('GlobalLocalFilter', dict(), 'depthwise convolutions only, with groups=8 here, got groups=1'),
    ('DecomposedLargeKernelConv2d', dict(groups=2), 'with groups=8 here, got groups=2'),
    ('LargeKernelConv2d', dict(groups=2), 'with groups=8 here, got groups=2'),
    ('LargeKernelConv2d', dict(out_channels=16, groups=8), 'got 8 and 16'),
    ('KWConv2d', dict(groups=3), 'groups must divide the channels'),
])
def test_what_else_does_not_fit_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_conv_layer(conv_cfg(name), **(dict(in_channels=8, out_channels=8, kernel_size=3, padding=1) | arguments))


def test_the_large_kernel_is_the_layers_or_that_of_the_config():
    kind = dict(type='plugconv_mm.DecomposedLargeKernelConv2d')
    assert build_conv_layer(kind, 8, 8, 31, padding=15, groups=8).vertical.conv.kernel_size == (31, 5)
    conv = build_conv_layer(kind | dict(large_kernel=13, small_kernel=3), 8, 8, 7, padding=3, groups=8)
    assert conv.horizontal.conv.kernel_size == (3, 13)
    for size, padding in ((3, 1), ((7, 9), (3, 4))):
        with pytest.raises(ValueError, match='set large_kernel in the conv_cfg'):
            build_conv_layer(kind, 8, 8, size, padding=padding, groups=8)


def test_a_large_kernel_in_a_conv_module_is_deployed():
    module = ConvModule(8, 8, 13, padding=6, groups=8, conv_cfg=dict(type='plugconv_mm.DecomposedLargeKernelConv2d'))
    x = torch.randn(2, 8, 9, 7)
    module(x)  # moves the running statistics
    y = module.eval()(x)
    ops.switch_to_deploy(module)
    assert module.conv.deployed
    torch.testing.assert_close(module(x), y, atol=1e-4, rtol=0)


@pytest.mark.parametrize('arguments', [dict(stride=2), dict(padding=0), dict(dilation=2), dict(padding='same')])
def test_kwconv_takes_whatever_a_convolution_takes(arguments):
    arguments = dict(kernel_size=3, padding=1) | arguments
    conv, plain = (build_conv_layer(cfg, 8, 12, **arguments) for cfg in (conv_cfg('KWConv2d'), None))
    x = torch.randn(2, 8, 9, 7)
    assert conv(x).shape == plain(x).shape
    kernels = conv.kernels(x.mean((2, 3))).permute(0, 1, 4, 2, 3)
    for i in range(2):
        plain.weight.data, plain.bias.data = kernels[i].detach(), conv.bias.detach()
        torch.testing.assert_close(conv(x)[i], plain(x[i:i + 1])[0])


def test_kwconvs_share_a_warehouse_that_is_given():
    warehouse = ops.KernelWarehouse(cell_num_ratio=0.5, sharing_range=('conv', ))
    cfg = dict(type='plugconv_mm.KWConv2d', warehouse=warehouse)
    net = torch.nn.Sequential(*(
        ConvModule(8, 8, 3, padding=1, conv_cfg=cfg | dict(name=f'conv{i}'), norm_cfg=dict(type='BN'))
        for i in range(2)))
    with pytest.raises(RuntimeError, match='allocate'):
        net(torch.rand(2, 8, 5, 5))
    warehouse.allocate(net)
    assert len(warehouse.weights) == 1 and len(warehouse.weights[0]) == 9
    assert net(torch.rand(2, 8, 5, 5)).shape == (2, 8, 5, 5)


# -- in mmdet and mmseg

@pytest.fixture
def build():
    """Builds from mmdet's registry with mmdet as the default scope, as its Runner does."""
    registry = pytest.importorskip('mmdet.registry').MODELS
    init_default_scope('mmdet')

    def build(cfg):
        torch.manual_seed(0)
        return registry.build(cfg)

    return build


def features(*channels):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, 12 >> i, 20 >> i, generator=generator) for i, c in enumerate(channels))


def fpn(name, in_channels=(8, 16, 24), **arguments):
    return dict(type='FPN', in_channels=list(in_channels), out_channels=16, num_outs=4,
                conv_cfg=conv_cfg(name)) | arguments


@pytest.mark.parametrize('arguments', [
    dict(), dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')), dict(norm_cfg=dict(type='GN', num_groups=4))])
@pytest.mark.parametrize('name', ['GnConv2d', 'GnConv2d-gf'])
def test_gnconv_in_an_fpn(build, name, arguments):
    neck = build(fpn(name, **arguments))
    neck.init_weights()
    outputs = neck(features(8, 16, 24))
    assert [tuple(o.shape) for o in outputs] == [(2, 16, 12 >> i, 20 >> i) for i in range(3)] + [(2, 16, 2, 3)]
    assert all(isinstance(m.conv, ops.GnConv2d) for m in [*neck.lateral_convs, *neck.fpn_convs])
    backward(outputs, neck)


def test_parc_in_an_fpn_of_one_width(build):
    neck = build(fpn('ParC2d', [16] * 3))
    neck.init_weights()
    outputs = neck(features(16, 16, 16))
    assert all(isinstance(m.conv, ops.ParC2d) for m in [*neck.lateral_convs, *neck.fpn_convs])
    backward(outputs, neck)


def test_kwconv_in_an_fpn_with_extra_levels(build):
    neck = build(fpn('KWConv2d', num_outs=5, add_extra_convs='on_output'))
    outputs = neck(features(8, 16, 24))
    assert [tuple(o.shape[2:]) for o in outputs] == [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]
    backward(outputs, neck)


@pytest.mark.parametrize('cfg, message', [
    (fpn('ParC2d'), 'as many channels out as in, got 8 and 16'),
    (fpn('GnConv2d', num_outs=5, add_extra_convs='on_output'), 'stride=2'),
    (fpn('GlobalLocalFilter', [16] * 3), 'depthwise convolutions only'),
    (fpn('DecomposedLargeKernelConv2d', [16] * 3), 'depthwise convolutions only'),
])
def test_where_an_fpn_cannot_have_it(build, cfg, message):
    with pytest.raises(ValueError, match=message):
        build(cfg)


HEADS = {
    'RetinaHead': dict(),
    'FCOSHead': dict(strides=[4, 8, 16], norm_cfg=None),
    'ATSSHead': dict(norm_cfg=dict(type='GN', num_groups=4), anchor_generator=dict(
        type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[4, 8, 16])),
}


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('name', ['GnConv2d', 'GnConv2d-gf', 'ParC2d', 'ParCHW2d', 'KWConv2d'])
def test_in_a_head(build, head, name):
    """Initialised as for training: heads draw plain convolutions with a deviation of 0.01."""
    stacked = 4 if name == 'GnConv2d' else 1
    module = build(dict(type=head, num_classes=3, in_channels=16, feat_channels=16, stacked_convs=stacked,
                        conv_cfg=conv_cfg(name)) | HEADS[head])
    module.init_weights()
    outputs = module(features(16, 16, 16))
    backward([level for kind in outputs for level in kind], module)
    for tower in (module.cls_convs, module.reg_convs):
        assert len(tower) == stacked
        for layer in tower:
            assert isinstance(layer.conv, getattr(ops, name.partition('-')[0]))
    x = features(16)[0]
    for layer in module.cls_convs:
        x = layer(x)
    assert 0.01 < x.std() < 100


@pytest.mark.parametrize('name', ['GnConv2d', 'GnConv2d-gf', 'ParC2d', 'ParCHW2d', 'KWConv2d'])
def test_a_box_head_without_proposals(build, name):
    head = build(dict(type='Shared4Conv1FCBBoxHead', num_classes=3, in_channels=16, conv_out_channels=16,
                      fc_out_channels=8, roi_feat_size=7, conv_cfg=conv_cfg(name)))
    head.init_weights()
    scores, boxes = head(torch.rand(0, 16, 7, 7))
    assert scores.shape == (0, 4) and boxes.shape == (0, 12)
    (scores.sum() + boxes.sum()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


def resnet(**arguments):
    return dict(type='ResNet', depth=50, base_channels=8, norm_cfg=dict(type='BN'), norm_eval=False,
                zero_init_residual=False) | arguments


@pytest.mark.parametrize('name', ['ParC2d', 'ParCHW2d', 'GnConv2d'])
def test_in_a_resnet(build, name):
    """In the place of 3x3 convolutions where they have stride 1, all of them in the caffe style."""
    backbone = build(resnet(style='caffe', dcn=conv_cfg(name), stage_with_dcn=(False, False, True, True)))
    backbone.init_weights()
    kind = getattr(ops, name)
    assert [sum(isinstance(m, kind) for m in getattr(backbone, f'layer{i}').modules()) for i in range(1, 5)] == [
        0, 0, 6, 3]
    outputs = backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(o.shape[2:]) for o in outputs] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    backward(outputs, backbone)


@pytest.mark.parametrize('arguments, message', [
    (dict(conv_cfg=conv_cfg('ParC2d')), 'stride=2'),  # the stem
    (dict(conv_cfg=conv_cfg('GnConv2d')), 'stride=2'),
    (dict(dcn=conv_cfg('ParCHW2d'), stage_with_dcn=(False, False, True, True)), 'kernel_size=3, stride=2'),
])
def test_where_a_resnet_cannot_have_it(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(resnet(**arguments))


def test_a_resnet_of_kwconvs(build):
    backbone = build(resnet(conv_cfg=conv_cfg('KWConv2d'), out_indices=(3, )))
    assert not any(isinstance(m, torch.nn.Conv2d) for m in backbone.modules())
    backward(backbone(torch.rand(2, 3, 64, 64)), backbone)


def test_gnconv_in_a_head_of_mmseg():
    registry = pytest.importorskip('mmseg.registry').MODELS
    init_default_scope('mmseg')
    head = registry.build(dict(
        type='UPerHead', in_channels=[8, 16, 24], in_index=[0, 1, 2], channels=16, num_classes=3, pool_scales=(1, 2),
        conv_cfg=conv_cfg('GnConv2d'), norm_cfg=dict(type='BN')))
    head.init_weights()
    backward([head(features(8, 16, 24))], head)
    assert isinstance(head.fpn_bottleneck.conv, ops.GnConv2d)
