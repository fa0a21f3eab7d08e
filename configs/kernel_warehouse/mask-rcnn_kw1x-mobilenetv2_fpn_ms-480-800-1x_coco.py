_base_ = '../_base_/mask-rcnn_ms-480-800-1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.KWMobileNetV2',
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/kw1x_mobilenetv2_100.pth')),
    neck=dict(in_channels=[24, 32, 96, 1280]))
