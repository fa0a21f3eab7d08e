_base_ = './cascade-mask-rcnn_hornet-tiny-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(backbone=dict(arch='tiny-gf', init_cfg=dict(checkpoint='checkpoints/hornet_tiny_gf.pth')))
