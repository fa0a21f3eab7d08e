# the baseline: a plain ResNet-50
_base_ = '../_base_/mask-rcnn_ms-480-800-1x_coco.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/resnet50_32xb128.pth')))
