_base_ = '../_base_/upernet_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.ParCResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_resnet50.pth')))
