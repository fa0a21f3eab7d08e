_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.SLaK',
        arch='tiny',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/slak_tiny.pth')),
    neck=dict(in_channels=[124, 249, 499, 998]))
# keeps the zeros of the sparse weights
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='plugconv_mm.DynamicSparsityHook', sparse_init='loaded', module='backbone'),
]
