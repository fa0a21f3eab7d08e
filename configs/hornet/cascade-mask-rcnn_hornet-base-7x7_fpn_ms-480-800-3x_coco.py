_base_ = './cascade-mask-rcnn_hornet-tiny-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        arch='base-7x7', drop_path_rate=0.7, init_cfg=dict(checkpoint='checkpoints/hornet_base_7x7.pth')),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
