_base_ = '../_base_/cascade-mask-rcnn_lr-decay_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.SLaK',
        arch='tiny',
        drop_path_rate=0.4,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/slak_tiny.pth')),
    neck=dict(in_channels=[124, 249, 499, 998]))
# keeps the zeros of the sparse weights
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='plugconv_mm.DynamicSparsityHook', sparse_init='loaded', module='backbone'),
]
