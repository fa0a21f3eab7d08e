_base_ = './cascade-mask-rcnn_hornet-small-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(backbone=dict(arch='small-gf', init_cfg=dict(checkpoint='checkpoints/hornet_small_gf.pth')))
