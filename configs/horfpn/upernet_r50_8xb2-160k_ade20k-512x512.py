_base_ = '../_base_/upernet_lr-decay_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
