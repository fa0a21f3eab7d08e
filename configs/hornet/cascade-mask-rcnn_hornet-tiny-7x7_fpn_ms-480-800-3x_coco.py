_base_ = '../_base_/cascade-mask-rcnn_lr-decay_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.HorNet',
        arch='tiny-7x7',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_tiny_7x7.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
