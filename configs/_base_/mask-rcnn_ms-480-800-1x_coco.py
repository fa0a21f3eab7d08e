# Mask R-CNN on COCO: 8 GPUs x 2 images, AdamW, 12 epochs
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    './datasets/coco_instance_ms-480-800.py',
    './schedules/coco_adamw_1x.py',
    './coco_runtime.py',
]
