# the baseline: a plain ConvNeXt-XT
_base_ = './upernet_parc-convnext-xt_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 0, 0), init_cfg=dict(checkpoint='checkpoints/convnext_xt.pth')))
