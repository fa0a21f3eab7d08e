_base_ = '../_base_/upernet_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.HATNet',
        arch='tiny',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hat_net_tiny.pth')),
    decode_head=dict(in_channels=[48, 96, 240, 384]),
    auxiliary_head=dict(in_channels=240))
