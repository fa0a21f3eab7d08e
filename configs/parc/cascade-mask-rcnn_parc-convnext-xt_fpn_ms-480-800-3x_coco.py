_base_ = '../_base_/cascade-mask-rcnn_lr-decay_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCConvNeXt',
        arch='xt',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_convnext_xt.pth')),
    neck=dict(in_channels=[48, 96, 192, 384]))
