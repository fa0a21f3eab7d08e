# the baseline: a plain ConvNeXt-XT
_base_ = './parc-convnext-xt_8xb128_in1k.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 0, 0)))
