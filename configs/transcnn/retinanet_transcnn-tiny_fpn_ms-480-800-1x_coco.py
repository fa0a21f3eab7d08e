_base_ = './retinanet_r50_fpn_ms-480-800-1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.TransCNN',
        arch='tiny',
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/transcnn_tiny.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]))
