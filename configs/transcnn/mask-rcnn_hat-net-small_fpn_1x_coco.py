_base_ = './mask-rcnn_hat-net-tiny_fpn_1x_coco.py'

model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='checkpoints/hat_net_small.pth')),
    neck=dict(in_channels=[64, 128, 320, 512]))
