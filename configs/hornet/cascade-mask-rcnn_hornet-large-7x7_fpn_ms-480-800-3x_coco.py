_base_ = './cascade-mask-rcnn_hornet-tiny-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        arch='large-7x7', drop_path_rate=0.7, init_cfg=dict(checkpoint='checkpoints/hornet_large_7x7_in22k.pth')),
    neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
