_base_ = '../_base_/upernet_lr-decay_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.HorNet',
        arch='tiny-7x7',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_tiny_7x7.pth')),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256))
