_base_ = './retinanet_transcnn-tiny_fpn_ms-480-800-1x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='checkpoints/transcnn_small.pth')))
