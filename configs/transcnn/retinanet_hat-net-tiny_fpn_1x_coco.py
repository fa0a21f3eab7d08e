_base_ = './retinanet_transcnn-tiny_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.HATNet',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hat_net_tiny.pth')),
    neck=dict(in_channels=[48, 96, 240, 384]))
