_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw_pvt_1x.py',
    '../_base_/coco_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.TransCNN',
        arch='tiny',
        drop_path_rate=0.1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/transcnn_tiny.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]))
