"""What a model counts: its parts, ParC in both forms, and what is not counted."""
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmcv')

from mmengine.config import Config  # noqa: E402

from plugconv_mm.analysis import build_model, measure, padded_shape  # noqa: E402
from plugconv_mm.models.backbones import HorNet, ParCConvNeXt, ParCResNet  # noqa: E402
from plugconv_mm.ops import GlobalLocalFilter, KWConv2d, ParC2d  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

ARCH = dict(channels=[8, 16, 32, 64], depths=[1, 1, 2, 1])
BACKBONE = dict(type='plugconv_mm.ParCConvNeXt', arch=ARCH, parc_blocks=(0, 0, 1, 1))


def build(scope, **model):
    pytest.importorskip(f'{scope}.models')
    return build_model(Config(dict(default_scope=scope, model=model)))


def fourier(n):
    """Multiply-adds of a real transform and of its inverse."""
    return 2 * 1.25 * n * math.log2(n)


@pytest.mark.parametrize('groups, direction', [(8, 'H'), (8, 'W'), (1, 'W'), (2, 'H')])
def test_parc_in_both_forms(groups, direction):
    layer = ParC2d(8, direction, 7, groups=groups)
    cost = measure(layer, (12, 20), 8)
    n, lines = (12, 20) if direction == 'H' else (20, 12)
    width = 8 // groups
    # The products of a depthwise transform stand alone; those of a group of channels are summed.
    mixed = lines * 8 * (n // 2 + 1) * (3 if width == 1 else 4 * width)
    fft = 8 * lines * fourier(n) + mixed
    assert cost.parc['spatial'] == 8 * width * n * n * lines
    assert cost.parc['fft'] == pytest.approx(fft, abs=2)
    assert cost.total_macs() == cost.total_macs('fft') == cost.parc['fft']
    assert cost.total_macs('spatial') == cost.parc['spatial']


def test_parc_counts_in_the_form_that_is_asked_for():
    auto, spatial = (measure(ParCConvNeXt(ARCH, (0, 0, 1, 1), backend), (64, 96)) for backend in ('auto', 'spatial'))
    assert auto.parc == spatial.parc and auto.parc['spatial'] != auto.parc['fft']
    assert 'FFT' in auto.macs['backbone'] and 'FFT' not in spatial.macs['backbone']
    assert auto.total_macs() == spatial.total_macs('fft')
    assert spatial.total_macs() == auto.total_macs('spatial')
    plain = measure(ParCConvNeXt(ARCH, (0, 0, 0, 0)), (64, 96))
    assert plain.parc == {}
    seven = 49 * (16 * 4 * 6 * 2 + 32 * 2 * 3 * 2)  # 7x7 convolutions of the two ParC blocks, 32 and 64 wide
    assert auto.total_macs() - auto.parc['fft'] == plain.total_macs() - seven


def test_global_filter():
    cost = measure(GlobalLocalFilter(8, 14, 8), (12, 20), 8)
    transform = 12 * 1.25 * 20 * math.log2(20) + 11 * 2.5 * 12 * math.log2(12)
    assert cost.macs['backbone'] == {
        'norm': 2 * 4 * 8 * 240, 'convolution': 9 * 4 * 240, 'complex product': 3 * 4 * 12 * 11,
        'FFT': pytest.approx(2 * 4 * transform, abs=8)}


def test_kernels_that_are_mixed_for_each_image_count():
    layer = KWConv2d(16, 32, 3, padding=1, bias=False)
    macs = measure(layer, (10, 10), 16).macs['backbone']
    cells, size = layer.warehouse.weights[0].shape[0], layer.warehouse.weights[0][0].numel()
    attention = 16 * 16 + 16 * 9 * (cells + 1)
    assert macs['convolution'] == 100 * 32 * 16 * 9
    assert macs['matrix product'] == attention + 9 * cells * size


def test_the_model_is_left_as_it_was():
    model = HorNet(dict(channels=[8, 16, 32, 64], depths=[1] * 4, orders=[2] * 4, filters=['7x7', '7x7', 'gf', 'gf'],
                        filter_sizes=[(4, 3)] * 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = measure(model, (64, 96)), measure(model, (64, 96))
    assert first == second
    assert model.training and all(p.requires_grad and p.device.type == 'cpu' for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():  # nothing derived from the weights is left behind
        assert all(torch.isfinite(y).all() for y in model.eval()(torch.rand(1, 3, 64, 96)))


def test_memory_does_not_grow_with_the_image():
    assert measure(ParCResNet(50), (8000, 12800)).total_macs() > 5e12


def test_detector():
    model = build(
        'mmdet', type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=BACKBONE,
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], start_level=1, out_channels=16, num_outs=3),
        bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1,
                       anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16, 32])))
    assert padded_shape(model, (50, 90)) == (64, 96)
    cost = measure(model, (64, 96))
    places = 8 * 12 + 4 * 6 + 2 * 3
    assert cost.macs['backbone'] == measure(model.backbone, (64, 96)).macs['backbone']
    assert cost.macs['neck'] == {'convolution': places * 16 * 16 * 9 + 16 * (96 * 16 + 24 * 32 + 6 * 64)}
    assert cost.macs['head'] == {'convolution': places * 9 * 16 * (16 + 3 + 16 + 4)}
    assert cost.total_params == sum(p.numel() for p in model.parameters())
    assert cost.params['neck'] == sum(p.numel() for p in model.neck.parameters())
    assert cost.params['head'] == sum(p.numel() for p in model.bbox_head.parameters())


def test_two_stages_count_a_thousand_boxes_and_a_hundred_masks():
    anchors = dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4, 8, 16, 32])
    regions = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[4, 8, 16, 32])
    align = dict(type='RoIAlign', sampling_ratio=0)
    model = build(
        'mmdet', type='MaskRCNN', backbone=BACKBONE, train_cfg=dict(rpn=None, rcnn=None),
        test_cfg=dict(rpn=None, rcnn=None),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4),
        rpn_head=dict(type='RPNHead', in_channels=16, feat_channels=16, anchor_generator=anchors),
        roi_head=dict(
            type='StandardRoIHead', bbox_roi_extractor=dict(regions, roi_layer=dict(align, output_size=7)),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=32, num_classes=3),
            mask_roi_extractor=dict(regions, roi_layer=dict(align, output_size=14)),
            mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3)))
    places = 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3
    masks = 100 * 196 * (16 * 16 * 9 + 16 * 16 * 4 + 4 * 3 * 16)  # a 3x3, a 2x2 that doubles the size, a 1x1
    assert measure(model, (64, 96)).macs['head'] == {
        'convolution': places * 16 * (16 * 9 + 1 + 4) + masks,
        'matrix product': 1000 * (49 * 16 * 32 + 32 * 32 + 32 * (4 + 3 * 4))}


def test_segmentor_without_its_auxiliary_head():
    model = build(
        'mmseg', type='EncoderDecoder', backbone=BACKBONE, train_cfg=dict(), test_cfg=dict(mode='whole'),
        decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1, concat_input=False,
                         num_classes=3, norm_cfg=dict(type='SyncBN')),
        auxiliary_head=dict(type='FCNHead', in_channels=32, in_index=2, channels=8, num_classes=3))
    cost = measure(model, (64, 96))
    assert cost.macs['head'] == {
        'convolution': 6 * 8 * (64 * 9 + 3), 'norm': 6 * 8, 'interpolation': 4 * 3 * 64 * 96}
    assert cost.total_params == sum(p.numel() for p in model.parameters())


def test_classifier():
    model = build(
        'mmpretrain', type='ImageClassifier', backbone=dict(BACKBONE, out_indices=(3, )),
        neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
    cost = measure(model, (64, 96))
    assert cost.macs['neck'] == {'pooling': 64 * 6 // 2} and cost.macs['head'] == {'matrix product': 640}


def test_table():
    lines = measure(ParCConvNeXt(ARCH, (0, 0, 1, 1)), (64, 96)).table().splitlines()
    assert lines[0].split() == ['backbone', 'neck', 'head', 'all']
    assert lines[1].startswith('parameters (M)') and lines[2].startswith('matrix product (G)')
    assert lines[-3].startswith('multiply-adds (G)')
    assert lines[-2].startswith('ParC as spatial:') and lines[-1].startswith('ParC as fft:')


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match=r'\(height, width\), got \(0, 10\)'):
        measure(torch.nn.Conv2d(3, 4, 1), (0, 10))
    with pytest.raises(ValueError, match='should be on the CPU, and parts of it are on meta'):
        measure(torch.nn.Conv2d(3, 4, 1, device='meta'), (8, 8))
    model = torch.nn.Module()
    model.backbone = torch.nn.Conv2d(3, 4, 1)
    with pytest.raises(NotImplementedError, match='Module has none of the heads'):
        measure(model, (8, 8))


def config(name):
    pytest.importorskip('mmdet.models')
    pytest.importorskip('mmseg.models')
    path, = (Path(__file__).parents[2] / 'configs').rglob(f'{name}.py')
    cfg = load_config(make_parser('').parse_args([str(path)]))
    cfg.model.backbone.update(arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 1, 1], orders=[2, 3, 4, 5],
                                        filters=['7x7'] * 4, filter_sizes=[(14, 8)] * 4), init_cfg=None)
    return cfg


def test_deformable_attention_samples_bilinearly():
    """DINO: each position or query reads 4 points of 4 maps in each of 8 heads."""
    cfg = config('dino-4scale_hornet-tiny-gf_8xb2-12e_coco')
    cfg.model.update(num_queries=20)
    cfg.model.neck.in_channels = [16, 32, 64]
    cfg.model.encoder.num_layers, cfg.model.decoder.num_layers = 2, 3
    cost = measure(build_model(cfg), (64, 96))
    positions = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2
    assert cost.macs['head']['interpolation'] == 4 * (2 * positions + 3 * 20) * 8 * 4 * 4 * (256 // 8)


def test_masks_of_queries_become_maps_of_classes():
    """Mask2Former: the scores of each query for each class times its mask, at every pixel of the image."""
    products = []
    for classes in (50, 150):
        cfg = config('mask2former_hornet-tiny-gf_8xb2-160k_ade20k-512x512')
        head = cfg.model.decode_head
        head.update(in_channels=[8, 16, 32, 64], num_classes=classes)
        head.loss_cls.class_weight = [1.] * (classes + 1)
        head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
        products.append(measure(build_model(cfg), (64, 96)).macs['head']['matrix product'])
    scores = 2 * 256 * 100  # before and after the only layer, of 100 queries
    assert products[1] - products[0] == (150 - 50) * (scores + 100 * 64 * 96)
