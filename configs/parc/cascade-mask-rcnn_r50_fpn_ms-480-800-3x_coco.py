# the baseline: a plain ResNet-50
_base_ = './cascade-mask-rcnn_parc-resnet50_fpn_ms-480-800-3x_coco.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 0, 0), init_cfg=dict(checkpoint='checkpoints/resnet50_8xb128.pth')))
