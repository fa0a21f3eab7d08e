"""Parameters and multiply-adds against those of the published tables."""
import pytest

pytest.importorskip('mmcv')

from mmengine.config import Config  # noqa: E402

from plugconv_mm.analysis import build_model, measure  # noqa: E402

TOLERANCE = 0.03
HORNET_WIDTHS = dict(tiny=64, small=96, base=128, large=192)
HORNET = {
    # arch: params (M), multiply-adds (G) as a classifier at 224x224, in Cascade Mask R-CNN at 1280x800, in UPerNet at
    # 2048x512 (large: 2560x640)
    'tiny-7x7': ((22, 4.0), (80, 730), (52, 926)),
    'tiny-gf': ((23, 3.9), (80, 728), (55, 924)),
    'small-7x7': ((50, 8.8), (107, 830), (81, 1030)),
    'small-gf': ((50, 8.7), (108, 827), (85, 1027)),
    'base-7x7': ((87, 15.6), (144, 969), (121, 1174)),
    'base-gf': ((88, 15.5), (146, 965), (126, 1171)),
    'large-7x7': ((209, 34.8), (251, 1363), (232, 2473)),
    'large-gf': ((211, 34.7), (259, 1358), (239, 2465)),
}


def near(value, published, unit):
    """Within three percent, or what rounds to the figure that the table prints."""
    digit = 10**-len(str(published).partition('.')[2]) if '.' in str(published) else 1
    assert abs(value / unit - published) <= max(TOLERANCE * published, digit / 2), (value / unit, published)


def classifier(backbone, width):
    return dict(type='ImageClassifier', backbone=dict(backbone, out_indices=(3, )),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=1000, in_channels=width))


def cascade(backbone, channels):
    """Cascade Mask R-CNN with boxes from four convolutions and a linear layer."""
    base = Config.fromstring("_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'", '.py').model
    for head in base.roi_head.bbox_head:
        head.update(type='ConvFCBBoxHead', num_shared_convs=4, num_shared_fcs=1, conv_out_channels=256,
                    norm_cfg=dict(type='SyncBN'), reg_class_agnostic=False)
    base.backbone, base.neck.in_channels = backbone, channels
    return base


def upernet(backbone, channels):
    common = dict(num_classes=150, norm_cfg=dict(type='SyncBN'), align_corners=False)
    return dict(
        type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor'), backbone=backbone,
        decode_head=dict(type='UPerHead', in_channels=channels, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6),
                         channels=512, **common),
        auxiliary_head=dict(type='FCNHead', in_channels=channels[2], in_index=2, channels=256, num_convs=1,
                            concat_input=False, **common),
        train_cfg=dict(), test_cfg=dict(mode='whole'))


def cost(scope, model, *shape):
    pytest.importorskip(f'{scope}.models')
    return measure(build_model(Config(dict(default_scope=scope, model=model))), shape)


def near(value, published, unit):
    """Within three percent, or what rounds to the figure that the table prints."""
    digit = 10**-len(str(published).partition('.')[2]) if '.' in str(published) else 1
    assert abs(value / unit - published) <= max(TOLERANCE * published, digit / 2), (value / unit, published)


def hornet(arch, **settings):
    size, _, name = arch.partition('-')
    return dict(type='plugconv_mm.HorNet', arch=arch, **settings), [HORNET_WIDTHS[size] * 2**i for i in range(4)]
