_base_ = '../_base_/cascade-mask-rcnn_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCMobileNetV2',
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_mobilenetv2.pth')),
    neck=dict(in_channels=[24, 32, 96, 1280]))
