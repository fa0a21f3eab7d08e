_base_ = '../_base_/upernet_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.TransCNN',
        arch='tiny',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/transcnn_tiny.pth')),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256))
