_base_ = [
    '../_base_/models/cascade-mask-rcnn_4conv1fc.py',
    '../_base_/datasets/coco_instance_ms-480-800.py',
    '../_base_/schedules/coco_adamw_3x.py',
    '../_base_/coco_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.SLaK',
        arch='tiny',
        drop_path_rate=0.4,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/slak_tiny.pth')),
    neck=dict(in_channels=[124, 249, 499, 998]))
optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7, decay_type='layer_wise', num_layers=6))
# the weights that sparse training left at zero stay there
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='plugconv_mm.DynamicSparsityHook', sparse_init='loaded', module='backbone'),
]
