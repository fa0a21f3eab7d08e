# the baseline: a plain MobileNetV2
_base_ = './mask-rcnn_parc-mobilenetv2_fpn_ms-480-800-1x_coco.py'

model = dict(backbone=dict(parc_blocks=(0, ) * 7, init_cfg=dict(checkpoint='checkpoints/mobilenetv2_8xb128.pth')))
