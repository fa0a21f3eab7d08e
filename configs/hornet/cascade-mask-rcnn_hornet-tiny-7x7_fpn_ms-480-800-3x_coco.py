_base_ = [
    '../_base_/models/cascade-mask-rcnn_4conv1fc.py',
    '../_base_/datasets/coco_instance_ms-480-800.py',
    '../_base_/schedules/coco_adamw_3x.py',
    '../_base_/coco_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.HorNet',
        arch='tiny-7x7',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_tiny_7x7.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]))
optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7, decay_type='layer_wise', num_layers=12))
