"""HorFPN as a neck, and in stock detectors of mmdet."""
import doctest

import pytest
import torch
import torch.nn.functional as F

import plugconv_mm  # noqa: F401  before mmdet, which looks for mmcv's operators while it is imported

pytest.importorskip('mmdet')

from mmdet.registry import MODELS as MMDET_MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from plugconv_mm.models.necks import HorFPN  # noqa: E402
from plugconv_mm.ops import GlobalLocalFilter, GnConv2d  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402

CHANNELS = [8, 16, 24, 32]


@pytest.fixture
def mmdet_scope():
    init_default_scope('mmdet')


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(24, 40), (12, 20), (6, 10), (3, 5)]
    return tuple(torch.randn(2, c, *s, generator=generator) for c, s in zip(CHANNELS, sizes, strict=True))


def test_outputs_are_gnconvs_of_the_top_down_sums():
    neck = HorFPN(CHANNELS, 16, 5).eval()
    maps = features()
    laterals = [conv(x) for conv, x in zip(neck.lateral_convs, maps, strict=True)]
    for i in (2, 1, 0):
        laterals[i] = laterals[i] + F.interpolate(laterals[i + 1], size=laterals[i].shape[2:], mode='nearest')
    expected = [module.conv(x) for module, x in zip(neck.fpn_convs, laterals, strict=True)]
    expected.append(expected[-1][:, :, ::2, ::2])
    assert all(isinstance(module.conv, GnConv2d) and module.conv.scale == 1 for module in neck.fpn_convs)
    torch.testing.assert_close(neck(maps), tuple(expected))


@pytest.mark.parametrize('filter', ['7x7', 'gf'])
@pytest.mark.parametrize('arguments', [
    dict(num_outs=4),
    dict(num_outs=5, start_level=1, add_extra_convs='on_input'),
    dict(num_outs=5, start_level=1, add_extra_convs='on_lateral', relu_before_extra_convs=True),
    dict(num_outs=6, start_level=1, add_extra_convs='on_output', upsample_cfg=dict(mode='bilinear')),
    dict(num_outs=5, add_extra_convs=True, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU')),
    dict(num_outs=2, start_level=1, end_level=2, upsample_cfg=dict(scale_factor=2)),
    dict(num_outs=5, norm_cfg=dict(type='GN', num_groups=4), no_norm_on_lateral=True),
], ids=lambda a: '-'.join(map(str, a)))
def test_every_argument_of_fpn(arguments, filter):
    """The same pyramid as mmdet's, sizes and extra levels, with gnConv in the place of the output convolutions."""
    torch.manual_seed(0)
    plain = MMDET_MODELS.build(dict(type='FPN', in_channels=CHANNELS, out_channels=16, **arguments))
    neck = MODELS.build(
        dict(type='plugconv_mm.HorFPN', in_channels=CHANNELS, out_channels=16, filter=filter, **arguments))
    maps = features()
    outputs = neck(maps)
    assert [o.shape for o in outputs] == [o.shape for o in plain(maps)]
    used = len(neck.lateral_convs)
    assert len(neck.fpn_convs) == len(plain.fpn_convs)
    for ours, theirs in zip(neck.fpn_convs, plain.fpn_convs, strict=True):
        assert ours.norm_cfg == theirs.norm_cfg and ours.act_cfg == theirs.act_cfg
    for i, module in enumerate(neck.fpn_convs):
        assert isinstance(module.conv, GnConv2d) == (i < used)
        if i >= used:
            assert module.conv.kernel_size == (3, 3) and module.conv.stride == (2, 2)
    sum(o.square().mean() for o in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())
    # With the output convolutions exchanged it is mmdet's own.
    for i in range(used):
        neck.fpn_convs[i] = plain.fpn_convs[i]
    neck.load_state_dict(plain.state_dict())
    torch.testing.assert_close(neck.eval()(maps), plain.eval()(maps))


def test_positional_arguments_and_options():
    neck = HorFPN(CHANNELS, 32, 3, 1, -1, False, False, False, None, dict(type='BN'), dict(type='ReLU'),
                  filter='gf', order=3, filter_size=[9, 5])
    assert neck.fpn_convs[0].with_norm and neck.fpn_convs[0].with_activation
    assert neck.fpn_convs[0].conv.order == 3
    assert neck.fpn_convs[0].conv.dwconv.complex_weight.shape == (28, 9, 5, 2)
    default = HorFPN(CHANNELS, 16, 4, filter='gf').fpn_convs[0].conv.dwconv
    assert isinstance(default, GlobalLocalFilter) and default.complex_weight.shape[1:] == (32, 17, 2)


def test_init_weights_reaches_everything():
    neck = HorFPN(CHANNELS, 16, 5)
    before = {name: value.clone() for name, value in neck.named_parameters()}
    neck.init_weights()
    changed = [name for name, value in neck.named_parameters() if not torch.equal(value, before[name])]
    assert {name for name in before if name.endswith('conv.proj_in.weight')} <= set(changed)


@pytest.mark.parametrize('arguments, message', [
    (dict(out_channels=15), 'cannot do so with 15 channels: pass a multiple of 2'),
    (dict(out_channels=16, order=6), 'multiple of 32'),
    (dict(out_channels=16, filter='5x5'), "unknown filter '5x5'"),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='plugconv_mm.HorFPN', in_channels=CHANNELS, num_outs=4, **arguments))


BASE = dict(
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3), base_channels=8,
                  norm_cfg=dict(type='BN')),
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, pad_mask=True,
                           pad_size_divisor=32))
RESNET_CHANNELS = [8, 16, 32, 64]
ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1,
               strides=[8, 16, 32, 64, 128])
BOXES = dict(type='DeltaXYWHBBoxCoder', target_means=[.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
TEST = dict(nms_pre=50, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
ASSIGNER = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
SAMPLER = dict(type='RandomSampler', num=16, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True)


def single_stage(kind, head, train_cfg=None):
    neck = dict(type='plugconv_mm.HorFPN', in_channels=RESNET_CHANNELS, out_channels=16, num_outs=5, start_level=1,
                add_extra_convs='on_input' if kind == 'RetinaNet' else 'on_output',
                relu_before_extra_convs=kind == 'FCOS', filter='gf' if kind == 'ATSS' else '7x7')
    head = dict(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, **head)
    return dict(type=kind, neck=neck, bbox_head=head, train_cfg=train_cfg, test_cfg=TEST, **BASE)


def mask_rcnn():
    region = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[4, 8, 16, 32])
    cross_entropy = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    return dict(
        type='MaskRCNN',
        neck=dict(type='plugconv_mm.HorFPN', in_channels=RESNET_CHANNELS, out_channels=16, num_outs=5),
        rpn_head=dict(
            type='RPNHead', in_channels=16, feat_channels=16, bbox_coder=BOXES,
            anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4, 8, 16, 32, 64]),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss')),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0), **region),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=16, roi_feat_size=7,
                           num_classes=3, bbox_coder=BOXES, loss_cls=cross_entropy, loss_bbox=dict(type='L1Loss')),
            mask_roi_extractor=dict(roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0), **region),
            mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3,
                           loss_mask=dict(type='CrossEntropyLoss', use_mask=True))),
        train_cfg=dict(
            rpn=dict(assigner=ASSIGNER, sampler=SAMPLER, allowed_border=-1, pos_weight=-1, debug=False),
            rpn_proposal=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(assigner=ASSIGNER, sampler=SAMPLER, mask_size=28, pos_weight=-1, debug=False)),
        test_cfg=dict(
            rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10, mask_thr_binary=0.5)),
        **BASE)


DETECTORS = {
    'MaskRCNN': mask_rcnn,
    'RetinaNet': lambda: single_stage(
        'RetinaNet', dict(type='RetinaHead', anchor_generator=ANCHORS, bbox_coder=BOXES, loss_cls=FOCAL,
                          loss_bbox=dict(type='L1Loss')),
        dict(assigner=ASSIGNER, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False)),
    'FCOS': lambda: single_stage(
        'FCOS', dict(type='FCOSHead', strides=[8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=4))),
    'ATSS': lambda: single_stage(
        'ATSS', dict(type='ATSSHead', anchor_generator=ANCHORS, bbox_coder=BOXES, loss_cls=FOCAL,
                     norm_cfg=dict(type='GN', num_groups=4), loss_bbox=dict(type='GIoULoss'),
                     loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True)),
        dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False)),
}


def batch():
    inputs, samples = [], []
    for height, width in ((64, 96), (64, 64)):
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), batch_input_shape=(
            64, 96), pad_shape=(64, 96), scale_factor=(1.0, 1.0)))
        masks = torch.zeros(2, height, width, dtype=torch.uint8)
        masks[0, 8:40, 8:40] = masks[1, 20:60, 30:62] = 1
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8., 8, 40, 40], [30, 20, 62, 60]]), labels=torch.tensor([0, 2]),
            masks=BitmapMasks(masks.numpy(), height, width))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('name', DETECTORS)
def test_in_a_detector_of_mmdet(mmdet_scope, name):
    torch.manual_seed(0)
    detector = MMDET_MODELS.build(ConfigDict(DETECTORS[name]()))
    data = detector.data_preprocessor(batch(), training=True)
    losses = detector(**data, mode='loss')
    loss, _ = detector.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()
    for key, parameter in detector.neck.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        # On other levels than the first, a Mask R-CNN may have sampled nothing.
        assert not key.startswith('fpn_convs.0.') or parameter.grad.abs().sum() > 0, key
    detector.eval()
    with torch.no_grad():
        results = detector(**detector.data_preprocessor(batch()), mode='predict')
    assert len(results) == 2 and all(r.pred_instances.bboxes.shape[1] == 4 for r in results)


def test_example():
    from plugconv_mm.models.necks import hor_fpn
    tested = doctest.testmod(hor_fpn)
    assert tested.attempted and not tested.failed
