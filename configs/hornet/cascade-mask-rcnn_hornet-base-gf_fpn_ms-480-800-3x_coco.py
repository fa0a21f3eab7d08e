_base_ = './cascade-mask-rcnn_hornet-base-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(backbone=dict(arch='base-gf', init_cfg=dict(checkpoint='checkpoints/hornet_base_gf.pth')))
