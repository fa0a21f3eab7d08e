_base_ = './cascade-mask-rcnn_hornet-tiny-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        arch='small-7x7', drop_path_rate=0.6, init_cfg=dict(checkpoint='checkpoints/hornet_small_7x7.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]))
