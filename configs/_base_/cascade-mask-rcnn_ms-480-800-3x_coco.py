# Cascade Mask R-CNN on COCO: 8 GPUs x 2 images, AdamW, 36 epochs
_base_ = [
    './models/cascade-mask-rcnn_4conv1fc.py',
    './datasets/coco_instance_ms-480-800.py',
    './schedules/coco_adamw_3x.py',
    './coco_runtime.py',
]
