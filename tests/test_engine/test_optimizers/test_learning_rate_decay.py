"""Which parameters share a learning rate, and what it is."""
from importlib import import_module

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS as ROOT_MODELS  # noqa: E402

from plugconv_mm.engine.optimizers.learning_rate_decay import layer_ids  # noqa: E402
from plugconv_mm.models import backbones  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402


class Net(nn.Module):
    """A backbone and a head, as a detector has them."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, 2)


def build(model, decay_type='layer_wise', num_layers=12, decay_rate=0.5, **optimizer):
    return build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=decay_rate, decay_type=decay_type, num_layers=num_layers),
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05) | optimizer))


def ids_of(config, decay_type, num_layers, scope='plugconv_mm'):
    registry = MODELS if scope == 'plugconv_mm' else ROOT_MODELS
    return layer_ids(Net(registry.build(dict(config, type=f'{scope}.{config["type"]}'))), decay_type, num_layers)


def check(ids, expected):
    """``expected`` gives the id of everything that begins with a prefix; a longer prefix goes first."""
    prefixes = sorted(expected, key=len, reverse=True)
    used = set()
    for name, number in ids.items():
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        assert prefix is not None, f'nothing is expected of {name}'
        assert number == expected[prefix], f'{name}: {number}, not {expected[prefix]}'
        used.add(prefix)
    assert used == set(expected)


def blocks(pattern, ids):
    return {f'backbone.{pattern.format(i)}.': number for i, number in enumerate(ids)}


def convnext_like(last, third, depth=4):
    """The published ids of ConvNeXt and HorNet."""
    expected = {f'backbone.{name}.': number for name, number in {
        'downsample_layers.0': 0, 'downsample_layers.1': 2, 'downsample_layers.2': 3, 'downsample_layers.3': last,
        'stages.0': 1, 'stages.1': 2, 'stages.3': last}.items()}
    expected |= {f'backbone.norm{i}.': last + 1 for i in range(4)}
    return expected | blocks('stages.2.{}', third) | {'head.': last + 1}


def slak(depth):
    return dict(type='SLaK', arch=dict(depths=[3, 3, depth, 3], channels=[8, 8, 8, 8]))


CONVNEXT_STAGES = {f'backbone.{name}.': number for name, number in {
    'downsample_layers': 0, 'stages.0': 1, 'stages.1': 2, 'stages.2': 3, 'stages.3': 4, 'norm0': 7, 'norm1': 7,
    'norm2': 7, 'norm3': 7}.items()} | {'head.': 7}
NINE, TWENTY_SEVEN = [i // 3 + 3 for i in range(9)], [i // 3 + 3 for i in range(27)]
EIGHTEEN = [i // 2 + 3 for i in range(18)]


@pytest.mark.parametrize('config, num_layers, third', [
    (dict(type='HorNet'), 12, EIGHTEEN), (dict(type='HorNet'), 6, [i // 6 + 3 for i in range(18)]),
    (slak(9), 6, NINE), (slak(27), 12, TWENTY_SEVEN), (dict(type='ParCConvNeXt'), 6, NINE)],
    ids=['hornet 12', 'hornet 6', 'slak-t', 'slak-s', 'parc-convnext'])
def test_convnext_like_by_layers(config, num_layers, third):
    check(ids_of(config, 'layer_wise', num_layers), convnext_like(num_layers, third))


@pytest.mark.parametrize('name', ['HorNet', 'SLaK', 'ParCConvNeXt'])
def test_convnext_like_by_stages(name):
    check(ids_of(dict(type=name), 'stage_wise', 6), CONVNEXT_STAGES)


def test_convnext_of_mmpretrain():
    pytest.importorskip('mmpretrain')
    config = dict(type='ConvNeXt', arch='tiny', out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
    check(ids_of(config, 'layer_wise', 6, 'mmpretrain'), convnext_like(6, NINE))
    check(ids_of(config, 'stage_wise', 6, 'mmpretrain'), CONVNEXT_STAGES)


def test_cells_of_a_warehouse_go_with_the_last_layer_that_draws_from_them():
    prefix = 'backbone.warehouse_manager.weights.'
    # stem, three downsampling convolutions, and of each stage the depthwise and the pointwise convolutions
    by_layer = dict(enumerate([0, 2, 3, 6, 1, 1, 2, 2, 5, 5, 6, 6]))
    expected = convnext_like(6, NINE) | {f'{prefix}{i}': number for i, number in by_layer.items()}
    ids = ids_of(dict(type='KWConvNeXt'), 'layer_wise', 6)
    check({name: number for name, number in ids.items() if not name.startswith(prefix)},
          {name: number for name, number in expected.items() if not name.startswith(prefix)})
    assert {name: number for name, number in ids.items() if name.startswith(prefix)} == {
        name: number for name, number in expected.items() if name.startswith(prefix)}
    ids = ids_of(dict(type='KWConvNeXt'), 'stage_wise', 6)
    assert [ids[f'{prefix}{i}'] for i in range(12)] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


RESNET = {'backbone.conv1.': 0, 'backbone.bn1.': 0, 'backbone.layer1.': 1, 'backbone.layer2.': 2}


@pytest.mark.parametrize('config, scope', [
    (dict(type='ParCResNet'), 'plugconv_mm'), (dict(type='ResNet', depth=50), 'mmdet')])
def test_resnet(config, scope):
    if scope == 'mmdet':
        pytest.importorskip('mmdet.models')
    check(ids_of(config, 'layer_wise', 6, scope),
          RESNET | blocks('layer3.{}', [3, 3, 4, 4, 5, 5]) | {'backbone.layer4.': 6, 'head.': 7})
    check(ids_of(config, 'stage_wise', 4, scope),
          RESNET | {'backbone.layer3.': 3, 'backbone.layer4.': 4, 'head.': 5})


def test_kw_resnet():
    ids = ids_of(dict(type='KWResNet', depth=50), 'stage_wise', 4)
    cells = 'backbone.warehouse_manager.weights.'
    check({name: number for name, number in ids.items() if not name.startswith(cells)},
          RESNET | {'backbone.layer3.': 3, 'backbone.layer4.': 4, 'head.': 5})
    # The first convolution and the shortcut of a stage draw from the cells of the stage before.
    assert [number for name, number in ids.items() if name.startswith(cells)] == [2, 3, 4, 4]


@pytest.mark.parametrize('name', ['ParCMobileNetV2', 'KWMobileNetV2'])
def test_mobilenetv2(name):
    ids = ids_of(dict(type=name), 'layer_wise', 6)
    ids = {name: number for name, number in ids.items() if 'warehouse_manager' not in name}
    third = [3, 3, 3, 4, 4, 5, 5]  # features 7 to 13
    check(ids, blocks('features.{}', [0, 1, 1, 1, 2, 2, 2, *third, 6, 6, 6, 6, 6]) | {'head.': 7})
    ids = ids_of(dict(type=name), 'stage_wise', 4)
    ids = {name: number for name, number in ids.items() if 'warehouse_manager' not in name}
    check(ids, blocks('features.{}', [0, 1, 1, 1, 2, 2, 2] + [3] * 7 + [4] * 5) | {'head.': 5})


def test_parcnet():
    outer = {'backbone.conv_1.': 0, 'backbone.layer_1.': 0, 'backbone.layer_2.': 1, 'backbone.layer_3.': 2}
    check(ids_of(dict(type='ParCNet'), 'layer_wise', 6),
          outer | {'backbone.layer_4.0.': 3, 'backbone.layer_4.1.': 4, 'backbone.layer_5.': 6, 'head.': 7})
    check(ids_of(dict(type='ParCNet'), 'stage_wise', 6),
          outer | {'backbone.layer_4.': 3, 'backbone.layer_5.': 4, 'head.': 7})


@pytest.mark.parametrize('name, third', [('TransCNN', [3, 3, 4, 5]), ('HATNet', [3, 3, 4, 4, 5, 5])])
def test_transcnn_and_hat_net(name, third):
    outer = {'backbone.patch_embed.': 0, 'backbone.blocks.0.': 1, 'backbone.blocks.1.': 2}
    check(ids_of(dict(type=name), 'layer_wise', 6),
          outer | {'backbone.ds2.': 2, 'backbone.ds3.': 3, 'backbone.ds4.': 6, 'backbone.blocks.3.': 6, 'head.': 7}
          | blocks('blocks.2.{}', third))
    check(ids_of(dict(type=name), 'stage_wise', 4),
          outer | {'backbone.ds': 0, 'backbone.blocks.2.': 3, 'backbone.blocks.3.': 4, 'head.': 5})


def test_swin():
    pytest.importorskip('mmdet.models')
    outer = {'backbone.patch_embed.': 0, 'backbone.stages.0.blocks.': 1, 'backbone.stages.1.blocks.': 2}
    config = dict(type='SwinTransformer', depths=(2, 2, 18, 2))
    norms = {f'backbone.norm{i}.': 13 for i in range(4)}
    check(ids_of(config, 'layer_wise', 12, 'mmdet'),
          outer | norms | blocks('stages.2.blocks.{}', EIGHTEEN) | {
              'backbone.stages.0.downsample.': 2, 'backbone.stages.1.downsample.': 3,
              'backbone.stages.2.downsample.': 12, 'backbone.stages.3.': 12, 'head.': 13})
    check(ids_of(config, 'stage_wise', 12, 'mmdet'),
          outer | norms | {'backbone.stages.2.blocks.': 3, 'backbone.stages.3.': 4, 'head.': 13}
          | {f'backbone.stages.{i}.downsample.': 0 for i in range(3)})


@pytest.mark.parametrize('name', backbones.__all__)
def test_every_backbone(name):
    """Stages never learn faster than what follows them."""
    net = Net(getattr(backbones, name)())
    of_stage = [{id(p) for module in net.backbone.stage_modules(stage) for p in module.parameters()}
                for stage in range(5)]
    for decay_type in ('layer_wise', 'stage_wise'):
        ids = layer_ids(net, decay_type, 12)
        assert set(ids) == {name for name, _ in net.named_parameters()}
        assert ids['head.weight'] == ids['head.bias'] == 13
        here = [{ids[name] for name, p in net.named_parameters() if id(p) in ours} - {13} for ours in of_stage]
        if decay_type == 'stage_wise':
            assert [found - {0} for found in here] == [set(), {1}, {2}, {3}, {4}]
        else:
            assert all(max(a) < max(b) and min(a) <= min(b) for a, b in zip(here, here[1:], strict=False))
            assert here[0] == {0} and here[4] == {12}


def small_hornet(**settings):
    return MODELS.build(dict(type='plugconv_mm.HorNet', arch=dict(
        channels=[8, 16, 32, 64], depths=[1, 1, 4, 1], orders=[2, 2, 2, 2], filters=['7x7', '7x7', 'gf', 'gf'],
        filter_sizes=[(4, 3)] * 4), **settings))


def rates(wrapper, model):
    """(learning rate, weight decay) by name."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (group['lr'], group['weight_decay'])
            for group in wrapper.optimizer.param_groups for p in group['params']}


def test_rates_and_weight_decay():
    model = Net(small_hornet())
    found = rates(build(model, num_layers=6, decay_rate=0.5), model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, expected in {
            'downsample_layers.0.0.weight': (0.5**7, 0.05), 'downsample_layers.0.0.bias': (0.5**7, 0),
            'downsample_layers.0.1.weight': (0.5**7, 0), 'stages.0.0.gnconv.proj_in.weight': (0.5**6, 0.05),
            'stages.1.0.gamma1': (0.5**5, 0), 'stages.2.0.norm1.weight': (0.5**4, 0),
            'stages.2.1.pwconv1.weight': (0.5**4, 0.05), 'stages.2.2.gnconv.dwconv.complex_weight': (0.5**3, 0.05),
            'stages.2.3.pwconv1.bias': (0.5**2, 0), 'stages.3.0.pwconv2.weight': (0.5, 0.05),
            'norm3.weight': (1, 0)}.items():
        assert found[f'backbone.{name}'] == pytest.approx(expected), name
    assert found['head.weight'] == (1, 0.05) and found['head.bias'] == (1, 0)


def test_weight_decay_of_tables_scales_and_embeddings():
    class Odd(nn.Module):

        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(nn.ModuleList([nn.Conv2d(2, 2, 1)]) for _ in range(4))
            self.stages[0][0].gamma = nn.Parameter(torch.ones(1, 2, 1, 1))
            self.stages[0][0].relative_position_bias_table = nn.Parameter(torch.ones(4, 2))
            self.stages[0][0].position_embedding = nn.Parameter(torch.ones(1, 2, 7, 1))

    model = Net(Odd())
    model.head.scale = nn.Parameter(torch.tensor(1.))
    found = rates(build(model), model)
    assert found['head.scale'][1] == 0
    stage = {name.rpartition('.')[2]: decay for name, (_, decay) in found.items() if 'stages.0' in name}
    assert stage == dict(gamma=0, relative_position_bias_table=0, bias=0, weight=0.05, position_embedding=0.05)


def test_frozen_parameters_are_left_out():
    model = Net(small_hornet(frozen_stages=1))
    found = rates(build(model), model)
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(('backbone.stages.0', 'backbone.downsample_layers.0')) for name in found)
    assert 'backbone.stages.1.0.gamma1' in found


def test_no_weight_decay_is_made_up():
    model = Net(small_hornet())
    groups = build_optim_wrapper(model, dict(
        constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=0.9, decay_type='stage_wise', num_layers=4),
        optimizer=dict(type='SGD', lr=0.1))).optimizer.param_groups
    assert {group['weight_decay'] for group in groups} == {0}


def test_schedules_scale_every_rate():
    from mmengine.optim import LinearLR
    wrapper = build(Net(small_hornet()))
    before = [group['lr'] for group in wrapper.optimizer.param_groups]
    LinearLR(wrapper, start_factor=0.1, end=10, by_epoch=False)
    assert [group['lr'] for group in wrapper.optimizer.param_groups] == pytest.approx([0.1 * lr for lr in before])
    assert wrapper.get_lr()['base_lr'][0] == pytest.approx(0.1)


BACKBONE = dict(
    type='plugconv_mm.ParCConvNeXt', arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 4, 1]), parc_blocks=(0, 0, 1, 1))
WHOLE = dict(
    mmdet=(dict(
        type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor'), backbone=BACKBONE,
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
        bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)),
           ('neck.', 'bbox_head.')),
    mmseg=(dict(
        type='EncoderDecoder', backbone=BACKBONE, train_cfg=dict(), test_cfg=dict(mode='whole'),
        decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_classes=3),
        auxiliary_head=dict(type='FCNHead', in_channels=32, in_index=2, channels=8, num_classes=3)),
           ('decode_head.', 'auxiliary_head.')),
    mmpretrain=(dict(
        type='ImageClassifier', backbone=BACKBONE, neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=64)), ('head.', )))


@pytest.mark.parametrize('package', WHOLE)
def test_whole_models(package):
    pytest.importorskip(f'{package}.models')
    config, heads = WHOLE[package]
    import_module(f'{package}.utils').register_all_modules(init_default_scope=True)
    model = import_module(f'{package}.registry').MODELS.build(config)
    found = rates(build(model, num_layers=6), model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for head in heads:
        assert {lr for name, (lr, _) in found.items() if name.startswith(head)} == {1.0}
    assert found['backbone.downsample_layers.0.0.weight'] == pytest.approx((0.5**7, 0.05))
    assert found['backbone.stages.2.3.dwconv.parc_h.position_embedding'] == pytest.approx((0.5**2, 0.05))
    assert found['backbone.stages.3.0.gamma'] == pytest.approx((0.5, 0))


@pytest.mark.parametrize('paramwise, words', [
    (None, 'lacks decay_rate, decay_type, num_layers'), (dict(decay_rate=0.7, decay_type='layer_wise'), 'num_layers'),
    (dict(decay_rate=0.7, num_layers=6), 'decay_type'), (dict(num_layers=6, decay_type='layer_wise'), 'decay_rate'),
    (dict(decay_rate=0.7, decay_type='block_wise', num_layers=6), "'layer_wise' or 'stage_wise', got 'block_wise'"),
    (dict(decay_rate=1.7, decay_type='layer_wise', num_layers=6), 'at most 1, got 1.7'),
    (dict(decay_rate='0.7', decay_type='layer_wise', num_layers=6), "a number above 0 and at most 1, got '0.7'"),
    (dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6.), 'integer'),
    (dict(decay_rate=0.7, decay_type='layer_wise', num_layers=3), 'at least 4'),
    (dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6, custom_keys=dict()), 'not custom_keys')])
def test_bad_settings(paramwise, words):
    with pytest.raises(ValueError, match=words):
        build_optim_wrapper(Net(small_hornet()), dict(
            constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor', paramwise_cfg=paramwise,
            optimizer=dict(type='AdamW', lr=1e-4)))


def test_bad_models():
    with pytest.raises(ValueError, match='Linear has none'):
        build(nn.Linear(2, 2))
    with pytest.raises(ValueError, match='cannot tell to which stage the parameter backbone.0.weight of Sequential'):
        build(Net(nn.Sequential(nn.Conv2d(3, 4, 1))))
    with pytest.raises(ValueError, match='give optimizer=dict'):
        build_optim_wrapper(Net(small_hornet()), dict(
            constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6), optimizer=dict(type='AdamW')))
