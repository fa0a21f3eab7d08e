_base_ = '../_base_/upernet_lr-decay_ade20k-512x512.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.SLaK',
        arch='tiny',
        drop_path_rate=0.4,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/slak_tiny.pth')),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499))
# keeps the zeros of the sparse weights
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='plugconv_mm.DynamicSparsityHook', sparse_init='loaded', module='backbone'),
]
