# the baseline: a plain ConvNeXt-XT
_base_ = './cascade-mask-rcnn_parc-convnext-xt_fpn_ms-480-800-3x_coco.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 0, 0), init_cfg=dict(checkpoint='checkpoints/convnext_xt.pth')))
