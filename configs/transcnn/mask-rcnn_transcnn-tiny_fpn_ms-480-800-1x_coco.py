_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-480-800.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/coco_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.TransCNN',
        arch='tiny',
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/transcnn_tiny.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]))
