_base_ = '../_base_/upernet_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.ParCMobileNetV2',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_mobilenetv2.pth')),
    decode_head=dict(in_channels=[24, 32, 96, 1280]),
    auxiliary_head=dict(in_channels=96))
