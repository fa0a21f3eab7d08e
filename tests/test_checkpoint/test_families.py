"""Published checkpoints of every family, of classifiers and of whole models, under the names that they were saved with.

The names of backbones, necks and heads of ours are those of the records. mmdet 2.x and mmseg 0.x named the other parts
of detectors and segmentors as mmdet 3.x and mmseg 1.x do; a few of these names are written out below.
"""
import copy
import functools
from pathlib import Path

import pytest
import recorded
import torch

mmdet, mmseg = pytest.importorskip('mmdet'), pytest.importorskip('mmseg')

from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.runner import load_checkpoint  # noqa: E402

from plugconv_mm.checkpoint import convert_official, load_from_local, write_checkpoint  # noqa: E402
from plugconv_mm.errors import CheckpointError  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402
from plugconv_mm.runtime.weights import load_weights  # noqa: E402

# record: a thin backbone whose names are all in it, the channels of its outputs, what else a published classifier holds
NORM_AND_HEAD = ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')
FC = ('fc.weight', 'fc.bias')
CLASSIFIER = ('classifier.1.weight', 'classifier.1.bias')
FAMILIES = {
    'hornet_tiny_7x7': (dict(type='HorNet', arch=dict(
        channels=[8, 16, 32, 64], depths=[1, 1, 1, 1], orders=[2, 3, 4, 5], filters=['7x7'] * 4,
        filter_sizes=[(14, 8)] * 4)), [8, 16, 32, 64], NORM_AND_HEAD),
    'hornet_tiny_gf': (dict(type='HorNet', arch=dict(
        channels=[8, 16, 32, 64], depths=[1, 1, 1, 1], orders=[2, 3, 4, 5], filters=['7x7', '7x7', 'gf', 'gf'],
        filter_sizes=[(14, 8)] * 4)), [8, 16, 32, 64], NORM_AND_HEAD),
    'kw_convnext_tiny_1x': (dict(type='KWConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
                            [8, 16, 32, 64], NORM_AND_HEAD),
    'kw_mobilenetv2_1x': (dict(type='KWMobileNetV2', widen_factor=0.25), [8, 8, 24, 1280], CLASSIFIER),
    'kw_resnet18_1d4x': (dict(type='KWResNet', depth=18, cell_num_ratio=0.25, cell_inplane_ratio=0.5,
                              cell_outplane_ratio=0.5), [64, 128, 256, 512], FC),
    'parc_convnext_xt': (dict(type='ParCConvNeXt', arch=dict(channels=[4, 8, 12, 16], depths=[1, 1, 9, 3])),
                         [4, 8, 12, 16], NORM_AND_HEAD),
    'parc_mobilenetv2': (dict(type='ParCMobileNetV2', widen_factor=0.25), [8, 8, 24, 1280], CLASSIFIER),
    'parc_resnet50': (dict(type='ParCResNet', base_channels=4), [16, 32, 64, 128], FC),
    'parcnet_s': (dict(type='ParCNet', arch=dict(depths=[2, 4, 3], inner_channels=[16] * 3, mixer_channels=[16] * 3)),
                  [64, 96, 128, 160], ('conv_1x1_exp.block.conv.weight', 'classifier.fc.weight', 'classifier.fc.bias')),
    'slak_tiny': (dict(type='SLaK', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
                       kernel_size=(13, 11, 9, 5), width_factor=1), [8, 16, 32, 64], NORM_AND_HEAD),
    'cls_hat_net_tiny': (dict(type='HATNet', arch=dict(
        depths=[1, 1, 1, 1], channels=[8, 16, 24, 32], head_widths=[8] * 4, expand_ratios=[2] * 4,
        kernel_sizes=[3] * 4)), [8, 16, 24, 32], CLASSIFIER),
    'transcnn_tiny': (dict(type='TransCNN', arch=dict(depths=[1, 1, 1, 1], channels=[64] * 4, expand_ratios=[1] * 4)),
                      [64] * 4, ('head.weight', 'head.bias')),
}
HORFPN = dict(type='plugconv_mm.HorFPN', out_channels=16, num_outs=5)


@functools.cache
def published_names(record):
    """Published names by ours, and the published names that have no place in ours."""
    tagged = {name: torch.zeros(()).expand(shape) for name, shape in recorded.load(record)['keys']}
    names = {id(tensor): name for name, tensor in tagged.items()}
    ours = {name: names.pop(id(tensor)) for name, tensor in convert_official(tagged).items()}
    return ours, list(names.values())


def backbone(record, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(FAMILIES[record][0] | kwargs)


def trained(model):
    """`model` with values that an initialisation does not give."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator))
    return model


def classifier(record, model):
    """The state dict of `model` as the published classifier of its family has it."""
    names, others = published_names(record)
    state = {names[name]: value for name, value in model.state_dict().items()
             if not name.startswith(('norm0', 'norm1', 'norm2', 'norm3'))}
    return {**state, **{name: torch.zeros(10, 1) for name in (*others, *FAMILIES[record][2])}}


def same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: {'model': state, 'model_ema': {}, 'epoch': 299, 'optimizer': {'state': {}}},
    lambda state: {'state_dict': {f'module.{name}': value for name, value in state.items()}},
], ids=['bare', 'model', 'module.'])
@pytest.mark.parametrize('record', FAMILIES)
def test_classifiers(record, wrap):
    model = trained(backbone(record))
    ours = convert_official(wrap(classifier(record, model)))
    expected = {name: value for name, value in model.state_dict().items() if name in ours}
    same(ours, expected)
    loaded = backbone(record).load_state_dict(ours, strict=False)
    has_norms = FAMILIES[record][2] == NORM_AND_HEAD
    assert loaded.missing_keys == [f'norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias') if has_norms]
    assert not loaded.unexpected_keys


@pytest.mark.parametrize('record, others', [
    *((record, []) for record in FAMILIES), ('parc_resnet50', [dict(type='Kaiming', layer='Conv2d')])])
def test_a_classifier_stands_in_init_cfg(tmp_path, record, others):
    model, path = trained(backbone(record)), tmp_path / 'published.pth'
    write_checkpoint({'model': classifier(record, model), 'epoch': 299}, path)
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    started = backbone(record, init_cfg=[*others, pretrained] if others else pretrained)
    started.init_weights()
    for name, value in started.state_dict().items():
        if name.startswith(('norm0', 'norm1', 'norm2', 'norm3')):  # not in it: as new
            assert (value == name.endswith('weight')).all(), name
        else:
            assert torch.equal(value, model.state_dict()[name]), name


# -- whole models

DETECTOR_NAMES = [
    'neck.lateral_convs.0.conv.weight', 'rpn_head.rpn_conv.weight', 'rpn_head.rpn_cls.bias', 'rpn_head.rpn_reg.weight',
    'roi_head.bbox_head.0.shared_convs.3.conv.weight', 'roi_head.bbox_head.1.shared_convs.0.bn.running_mean',
    'roi_head.bbox_head.2.shared_fcs.0.weight', 'roi_head.bbox_head.0.fc_cls.weight',
    'roi_head.bbox_head.2.fc_reg.bias', 'roi_head.mask_head.0.convs.0.conv.weight',
    'roi_head.mask_head.1.upsample.weight', 'roi_head.mask_head.2.conv_logits.bias']
ONE_HEAD_NAMES = [
    'neck.lateral_convs.3.conv.weight', 'rpn_head.rpn_conv.bias', 'roi_head.bbox_head.shared_fcs.1.weight',
    'roi_head.bbox_head.fc_cls.weight', 'roi_head.bbox_head.fc_reg.weight']
MASK_NAMES = ['roi_head.mask_head.convs.3.conv.weight', 'roi_head.mask_head.upsample.weight',
              'roi_head.mask_head.conv_logits.weight']
RETINA_NAMES = ['neck.fpn_convs.4.conv.weight', 'bbox_head.cls_convs.3.conv.weight', 'bbox_head.reg_convs.0.conv.bias',
                'bbox_head.retina_cls.weight', 'bbox_head.retina_reg.bias']
SEGMENTOR_NAMES = [
    'decode_head.conv_seg.weight', 'decode_head.psp_modules.1.1.bn.weight', 'decode_head.bottleneck.conv.weight',
    'decode_head.lateral_convs.2.conv.weight', 'decode_head.fpn_convs.0.bn.running_var',
    'auxiliary_head.convs.0.conv.weight', 'auxiliary_head.conv_seg.bias']


def stock(package, name):
    """The model of a base config that mmdet or mmseg bring."""
    return Config.fromfile(Path(package.__file__).parent / '.mim' / 'configs' / '_base_' / 'models' / name).model


def detector(record, neck=None):
    """A Cascade Mask R-CNN with heads of four convolutions, as published with HorNet and SLaK, thin."""
    cfg = stock(mmdet, 'cascade-mask-rcnn_r50_fpn.py')
    kind, channels, _ = FAMILIES[record]
    cfg.backbone = ConfigDict(kind | dict(type=f'plugconv_mm.{kind["type"]}'))
    cfg.neck = ConfigDict(neck or dict(type='FPN', out_channels=16, num_outs=5), in_channels=channels)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    head = cfg.roi_head
    head.bbox_roi_extractor.out_channels = head.mask_roi_extractor.out_channels = 16
    for box_head in head.bbox_head:
        box_head.update(type='ConvFCBBoxHead', num_shared_convs=4, num_shared_fcs=1, in_channels=16,
                        conv_out_channels=16, fc_out_channels=16, norm_cfg=dict(type='SyncBN'))
    head.mask_head.update(in_channels=16, conv_out_channels=16)
    return MODELS.build(ConfigDict(cfg, _scope_='mmdet'))


def with_one_head(record, file):
    """A Faster or Mask R-CNN or a RetinaNet, as published with KernelWarehouse, TransCNN and SLaK, thin."""
    cfg = stock(mmdet, file)
    kind, channels, _ = FAMILIES[record]
    cfg.backbone = ConfigDict(kind | dict(type=f'plugconv_mm.{kind["type"]}'))
    cfg.neck.update(in_channels=channels, out_channels=16)
    if 'rpn_head' not in cfg:
        cfg.bbox_head.update(in_channels=16, feat_channels=16)
    else:
        cfg.rpn_head.update(in_channels=16, feat_channels=16)
        cfg.roi_head.bbox_roi_extractor.out_channels = 16
        cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16)
        if 'mask_head' in cfg.roi_head:
            cfg.roi_head.mask_roi_extractor.out_channels = 16
            cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    return MODELS.build(ConfigDict(cfg, _scope_='mmdet'))


def segmentor(record, head='UPerHead', **kwargs):
    cfg = stock(mmseg, 'upernet_r50.py')
    kind, channels, _ = FAMILIES[record]
    cfg.update(pretrained=None, data_preprocessor=None)
    cfg.backbone = ConfigDict(kind | dict(type=f'plugconv_mm.{kind["type"]}'))
    norm_cfg = dict(type='SyncBN')
    cfg.decode_head.update(type=head, in_channels=channels, channels=16, num_classes=5, norm_cfg=norm_cfg, **kwargs)
    cfg.auxiliary_head.update(in_channels=channels[2], channels=16, num_classes=5, norm_cfg=norm_cfg)
    return MODELS.build(ConfigDict(cfg, _scope_='mmseg'))


def as_published(record, state):
    """The state dict of a whole model under published names."""
    names, _ = published_names(record)
    renamed = {}
    for name, value in state.items():
        part, _, rest = name.partition('.')
        if part == 'backbone':
            rest = names[rest]
        elif (part, rest.split('.')[0]) in (('neck', 'fpn_convs'), ('decode_head', 'fpn_bottleneck')):
            for inner in ('proj_in', 'dwconv', 'pws', 'proj_out'):
                rest = rest.replace(f'.conv.{inner}', f'.{inner}')
        renamed[f'{part}.{rest}'] = value
    return renamed


def check_whole(tmp_path, record, build, **kwargs):
    model = trained(build(record, **kwargs))
    state = model.state_dict()
    published = as_published(record, state)
    for wrap in (lambda s: s, lambda s: {'state_dict': {f'module.{name}': value for name, value in s.items()}}):
        same(convert_official(wrap(published)), dict(state))
    same(convert_official(state), dict(state))
    meta = dict(CLASSES=('a', 'b'), epoch=36, mmdet_version='2.11.0', config='model = dict()')
    write_checkpoint({'meta': meta, 'state_dict': published}, tmp_path / 'published.pth')
    loaded = build(record, **kwargs)
    checkpoint = load_checkpoint(loaded, str(tmp_path / 'published.pth'), map_location='cpu', strict=True)
    same(dict(loaded.state_dict()), dict(state))
    assert checkpoint['meta']['CLASSES'] == ('a', 'b')
    return published


@pytest.mark.parametrize('record', FAMILIES)
def test_a_whole_detector(tmp_path, record):
    published = check_whole(tmp_path, record, detector)
    assert {*DETECTOR_NAMES, 'neck.fpn_convs.3.conv.weight'} <= published.keys()
    # Its backbone alone, as in the init_cfg of a segmentor.
    started = backbone(record, init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'published.pth'), prefix='backbone.'))
    started.init_weights()
    same({f'backbone.{name}': value for name, value in started.state_dict().items()},
         {name: value for name, value in convert_official(published).items() if name.startswith('backbone.')})


@pytest.mark.parametrize('file, names', [
    ('faster-rcnn_r50_fpn.py', ONE_HEAD_NAMES), ('mask-rcnn_r50_fpn.py', ONE_HEAD_NAMES + MASK_NAMES),
    ('retinanet_r50_fpn.py', RETINA_NAMES)], ids=lambda value: value[:4] if isinstance(value, str) else '')
@pytest.mark.parametrize('record', ['slak_tiny', 'kw_resnet18_1d4x', 'cls_hat_net_tiny', 'transcnn_tiny'])
def test_detectors_with_one_head(tmp_path, record, file, names):
    assert {*names} <= check_whole(tmp_path, record, with_one_head, file=file).keys()


@pytest.mark.parametrize('build, lost', [
    (lambda: detector('hornet_tiny_7x7'), 'roi_head.bbox_head.1.shared_convs.0.bn.running_mean'),
    (lambda: with_one_head('cls_hat_net_tiny', 'retinanet_r50_fpn.py'), 'bbox_head.retina_cls.weight'),
    (lambda: segmentor('slak_tiny'), 'auxiliary_head.convs.0.bn.bias')], ids=['cascade', 'retinanet', 'upernet'])
def test_a_missing_or_unknown_weight_of_a_head_is_named(tmp_path, build, lost):
    model = build()
    state = {name: value for name, value in model.state_dict().items() if name != lost}
    unknown = lost.replace('head.', 'head.novel.')
    for weights, message in ((state, f'1 weights of the model are not in it, e.g. {lost}'),
                             ({**model.state_dict(), unknown: torch.zeros(1)},
                              f'1 weights in it are not of the model, e.g. {unknown}')):
        write_checkpoint({'meta': dict(mmdet_version='2.11.0'), 'state_dict': weights}, tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match=message):
            load_weights(model, tmp_path / 'x.pth')


@pytest.mark.parametrize('record', FAMILIES)
def test_a_whole_segmentor(tmp_path, record):
    published = check_whole(tmp_path, record, segmentor)
    assert {*SEGMENTOR_NAMES, 'decode_head.fpn_bottleneck.conv.weight'} <= published.keys()


@pytest.mark.parametrize('filter', ['7x7', 'gf'])
@pytest.mark.parametrize('record', ['hornet_tiny_gf', 'slak_tiny'])
def test_with_our_neck_and_head(tmp_path, record, filter):
    published = check_whole(tmp_path, record, detector, neck=dict(HORFPN, filter=filter))
    assert {*DETECTOR_NAMES, 'neck.fpn_convs.0.proj_in.weight'} <= published.keys()
    published = check_whole(tmp_path, record, segmentor, head='plugconv_mm.HorUPerHead', filter=filter)
    assert {*SEGMENTOR_NAMES, 'decode_head.fpn_bottleneck.proj_in.weight'} <= published.keys()


@pytest.mark.parametrize('record', FAMILIES)
def test_unknown_keys_of_a_part_are_named_as_in_the_file(record):
    state = {f'backbone.{name}': value for name, value in classifier(record, backbone(record)).items()}
    state['neck.lateral_convs.0.conv.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"^1 of \d+ keys are unknown in a [\w-]+ .*: 'backbone\.novel\.weight'"):
        convert_official({**state, 'backbone.novel.weight': torch.zeros(1)})
    convert_official(state)


@pytest.mark.parametrize('record', FAMILIES)
def test_checkpoints_of_a_run_pass_as_they_are(tmp_path, record):
    """What our own Runner wrote keeps its optimizer, and a network built upon a backbone of ours its own layers."""
    checkpoint = {'meta': {'epoch': 3}, 'optimizer': {'state': {}}, 'state_dict': {
        **{f'backbone.{name}': value for name, value in backbone(record).state_dict().items()},
        'backbone.novel.weight': torch.zeros(1), 'head.fc.weight': torch.zeros(10, 1)}}
    write_checkpoint(checkpoint, tmp_path / 'epoch_3.pth')
    read = load_from_local(str(tmp_path / 'epoch_3.pth'))
    assert read.keys() == checkpoint.keys()
    same(read['state_dict'], checkpoint['state_dict'])


def test_the_dynamic_classifier_of_kw_mobilenetv2(tmp_path):
    """The half-budget network mixes its classifier, too, from a warehouse that was named after all others."""
    model = MODELS.build(dict(type='KWMobileNetV2', widen_factor=0.5, cell_num_ratio=0.5))
    state = dict(model.state_dict())
    assert sum(name.startswith('warehouse_manager.') for name in state) == 9
    published = {**state, 'warehouse_manager.weights.9': torch.zeros(20, 1000, 32, 1),
                 'classifier.1.attention.fc1.weight': torch.zeros(40, 1280),
                 'classifier.1.attention.fc2.weight': torch.zeros(840, 40), 'classifier.1.bias': torch.zeros(1000)}
    same(convert_official(published), state)
    write_checkpoint({'model': published}, tmp_path / 'published.pth')
    started = copy.deepcopy(model)
    trained(started)
    load_checkpoint(started, str(tmp_path / 'published.pth'), strict=True)
    same(dict(started.state_dict()), state)
