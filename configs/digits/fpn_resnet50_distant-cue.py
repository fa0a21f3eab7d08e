# backbones of full size on small images with one digit each
_base_ = '../_base_/study.py'

metainfo = dict(
    classes=('background', 'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'),
    palette=[[25 * i, 200 - 20 * i, 90 * i % 256] for i in range(11)])
train_dataloader = dict(dataset=dict(metainfo=metainfo, data_prefix=dict(seg_map_path='digit/training')))
val_dataloader = dict(dataset=dict(metainfo=metainfo, data_prefix=dict(seg_map_path='digit/validation')))
test_dataloader = val_dataloader

model = dict(
    backbone=dict(
        _delete_=True, type='plugconv_mm.ParCResNet', depth=50, parc_blocks=(0, 0, 0, 0), zero_init_residual=False),
    neck=dict(in_channels=[256, 512, 1024, 2048], out_channels=64, num_outs=4),
    decode_head=dict(
        in_channels=[64] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], channels=64, num_classes=11,
        loss_decode=dict(class_weight=[0.3] + [1.0] * 10)))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=300, T_max=260),
]
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300))
