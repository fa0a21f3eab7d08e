_base_ = './cascade-mask-rcnn_hornet-large-7x7_fpn_ms-480-800-3x_coco.py'

model = dict(backbone=dict(arch='large-gf-img384', init_cfg=dict(checkpoint='checkpoints/hornet_large_gf_in22k.pth')))
