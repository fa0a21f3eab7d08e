_base_ = '../_base_/upernet_lr-decay_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.ParCConvNeXt',
        arch='xt',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_convnext_xt.pth')),
    decode_head=dict(in_channels=[48, 96, 192, 384]),
    auxiliary_head=dict(in_channels=192))
