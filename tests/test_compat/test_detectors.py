"""mmdet's detectors train and predict on the bridged operators."""
import pytest
import torch

mmdet = pytest.importorskip('mmdet', reason='mmdet is not installed')

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.compat import bridge  # noqa: E402


def loss_box(kind='L1Loss', **kwargs):
    return dict(type=kind, loss_weight=1., **kwargs)


ANCHORS = dict(type='AnchorGenerator', ratios=[1.], strides=[4, 8, 16, 32])
CODER = dict(type='DeltaXYWHBBoxCoder')
FOCAL = dict(type='FocalLoss', use_sigmoid=True)
ENTROPY = dict(type='CrossEntropyLoss', use_sigmoid=True)
DENSE_TEST = dict(nms_pre=50, score_thr=0., nms=dict(type='soft_nms', iou_threshold=.5), max_per_img=10)
SAMPLER = dict(type='RandomSampler', num=32, pos_fraction=.5)


def assigner(positive, **kwargs):
    return dict(type='MaxIoUAssigner', pos_iou_thr=positive, neg_iou_thr=positive, **kwargs)


def one_stage(kind, backbone, head, **kwargs):
    return dict(type=kind, backbone=backbone, bbox_head=dict(
        num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, loss_cls=FOCAL, **head),
        test_cfg=DENSE_TEST, **kwargs)


def resnet(**kwargs):
    return dict(type='ResNet', depth=50, base_channels=8, norm_eval=False, **kwargs)


def mask_rcnn():
    roi = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[4, 8, 16, 32])
    return dict(
        type='MaskRCNN', backbone=resnet(),
        rpn_head=dict(type='RPNHead', in_channels=16, feat_channels=16, bbox_coder=CODER, loss_cls=ENTROPY,
                      loss_bbox=loss_box(), anchor_generator=dict(ANCHORS, scales=[8])),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(roi, roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0)),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=16, num_classes=3,
                           bbox_coder=CODER, loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=loss_box()),
            mask_roi_extractor=dict(roi, roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0)),
            mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3,
                           loss_mask=dict(type='CrossEntropyLoss', use_mask=True))),
        train_cfg=dict(rpn=dict(assigner=assigner(.5, min_pos_iou=.3), sampler=SAMPLER, allowed_border=-1,
                                pos_weight=-1),
                       rpn_proposal=dict(nms_pre=100, max_per_img=50, nms=dict(type='nms', iou_threshold=.7),
                                         min_bbox_size=0),
                       rcnn=dict(assigner=assigner(.5, min_pos_iou=.5), sampler=dict(SAMPLER, add_gt_as_proposals=True),
                                 mask_size=28, pos_weight=-1)),
        test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50, nms=dict(type='nms', iou_threshold=.7), min_bbox_size=0),
                      rcnn=dict(score_thr=0., nms=dict(type='nms', iou_threshold=.5), max_per_img=10,
                                mask_thr_binary=.5)))


def retinanet(backbone):
    return one_stage('RetinaNet', backbone, dict(
        type='RetinaHead', bbox_coder=CODER, loss_bbox=loss_box(),
        anchor_generator=dict(ANCHORS, octave_base_scale=4, scales_per_octave=1)),
        train_cfg=dict(assigner=assigner(.4, min_pos_iou=0), sampler=dict(type='PseudoSampler'), allowed_border=-1,
                       pos_weight=-1))


def fcos():
    return one_stage('FCOS', resnet(), dict(type='FCOSHead', strides=[4, 8, 16, 32], norm_cfg=None, loss_bbox=loss_box(
        'IoULoss'), loss_centerness=ENTROPY, regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 1e8))))


DETECTORS = {
    'mask_rcnn': mask_rcnn,
    'retinanet_dcn': lambda: retinanet(resnet(dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
                                              stage_with_dcn=(False, False, True, False))),
    'retinanet_dcnv2': lambda: retinanet(resnet(dcn=dict(type='DCNv2', deform_groups=2, fallback_on_stride=False),
                                                stage_with_dcn=(False, False, True, False))),
    'fcos': fcos,
}


def sample_of(size):
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo=dict(
        img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size), batch_input_shape=(size, size),
        scale_factor=(1., 1.), img_id=0, border=np.array([0, size, 0, size])))
    boxes = torch.tensor([[4., 4., 36., 40.], [20., 24., 60., 60.]])
    masks = np.zeros((2, size, size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks, size, size))
    return sample


def check_gradients(model, parameters):
    for parameter in parameters:
        gradient = model.get_parameter(parameter).grad
        assert gradient.isfinite().all() and gradient.abs().sum() > 0, parameter


@pytest.mark.parametrize('name', DETECTORS)
def test_trains_and_predicts(name):
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict

    torch.manual_seed(0)
    neck = dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=16, num_outs=4)
    model = MODELS.build(ConfigDict(DETECTORS[name](), neck=neck, _scope_='mmdet'))
    assert bridge.in_use() is not None

    sample, images = sample_of(64), torch.randn(1, 3, 64, 64)
    losses, _ = model.parse_losses(model.loss(images, [sample]))
    losses.backward()
    assert losses.isfinite()
    check_gradients(model, ('backbone.conv1.weight', 'backbone.layer3.2.conv2.weight',
                            'neck.fpn_convs.0.conv.weight'))

    model.eval()
    with torch.no_grad():
        results = model.predict(images, [sample])
    assert [len(result.pred_instances) for result in results] == [10]
    assert all(result.pred_instances.bboxes.isfinite().all() for result in results)


CHANNELS = ('in_channels', 'out_channels', 'feat_channels', 'fc_out_channels', 'conv_out_channels',
            'output_channels', 'compressed_channels', 'channels', 'deform_fc_channels')


def narrowed(config, factor):
    """A config with all widths divided."""
    if isinstance(config, dict):
        return type(config)({
            key: ([v // factor for v in value] if isinstance(value, (list, tuple)) else value // factor)
            if key in CHANNELS else narrowed(value, factor) for key, value in config.items()})
    return [narrowed(value, factor) for value in config] if isinstance(config, list) else config


def of_mmdet(path):
    """A ResNet-50 detector of mmdet's own configs, an eighth as wide."""
    from mmengine.config import Config
    config = Config.fromfile(f'{mmdet.__path__[0]}/.mim/configs/{path}').model
    config = narrowed(config, 8)
    del config.data_preprocessor
    config.backbone.pop('init_cfg', None)
    config.backbone.update(base_channels=8, frozen_stages=-1, norm_eval=False, norm_cfg=dict(type='BN'))
    config.backbone.pop('style', None)
    return config


def cornernet():
    """CornerNet on one small hourglass; its heads pool towards the four sides."""
    config = of_mmdet('cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py')
    config.backbone = dict(type='HourglassNet', downsample_times=2, num_stacks=1, stage_channels=[8, 8, 8],
                           stage_blocks=[1, 1, 1], feat_channel=8)
    config.bbox_head.update(num_feat_levels=1, in_channels=8)
    return config


OF_MMDET = {
    'guided_anchoring': ('guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py',
                         'bbox_head.feature_adaption_reg.conv_offset.weight'),
    'pisa': ('pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py', 'roi_head.bbox_head.fc_cls.weight'),
    'carafe': ('carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py', 'neck.upsample_modules.0.content_encoder.weight'),
    'dyhead': ('dyhead/atss_r50_fpn_dyhead_1x_coco.py', 'neck.1.dyhead_blocks.0.spatial_conv_offset.weight'),
    'dpool': ('dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py',
              'roi_head.bbox_roi_extractor.roi_layers.0.offset_fc.4.weight'),
    'mdpool': ('dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py',
               'roi_head.bbox_roi_extractor.roi_layers.0.mask_fc.2.weight'),
    'cornernet': (None, 'bbox_head.tl_pool.0.direction1_conv.conv.weight'),
}


@pytest.mark.parametrize('name', OF_MMDET)
def test_configs_of_mmdet_need_no_compiler(name):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    register_all_modules(init_default_scope=True)

    torch.manual_seed(0)
    path, parameter = OF_MMDET[name]
    model = MODELS.build(of_mmdet(path) if path else cornernet())
    sample, images = sample_of(64), torch.randn(2, 3, 64, 64)
    losses, _ = model.parse_losses(model.loss(images, [sample, sample]))
    losses.backward()
    assert losses.isfinite()
    check_gradients(model, [next(iter(dict(model.backbone.named_parameters(prefix='backbone')))), parameter])
    model.eval()
    with torch.no_grad():
        results = model.predict(images[:1], [sample])  # mmcv's masked convolution takes one image
    assert all(result.pred_instances.bboxes.isfinite().all() for result in results)


def test_psanet_of_mmseg_needs_no_compiler():
    pytest.importorskip('mmseg', reason='mmseg is not installed')
    import mmseg
    from mmengine.config import Config
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=True)

    torch.manual_seed(0)
    config = Config.fromfile(f'{mmseg.__path__[0]}/.mim/configs/psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    config = narrowed(config.model, 8)
    del config.data_preprocessor
    config.pretrained = None
    batch_norm = dict(type='BN')
    config.backbone.update(base_channels=8, stem_channels=8, norm_cfg=batch_norm)
    config.decode_head.update(mask_size=(9, 9), norm_cfg=batch_norm)
    config.auxiliary_head.update(norm_cfg=batch_norm)
    model = MODELS.build(config)
    sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 19, (1, 64, 64)))
    losses, _ = model.parse_losses(model.loss(torch.randn(2, 3, 64, 64), [sample, sample]))
    losses.backward()
    assert losses.isfinite()
    check_gradients(model, ('backbone.stem.0.weight', 'decode_head.attention.1.weight',
                            'decode_head.attention_p.1.weight'))
