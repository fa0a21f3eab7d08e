_base_ = './mask-rcnn_transcnn-tiny_fpn_1x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='checkpoints/transcnn_small.pth')))
