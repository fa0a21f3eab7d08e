# the baseline: a plain MobileNetV2
_base_ = './parc-mobilenetv2_8xb128_in1k.py'

model = dict(backbone=dict(parc_blocks=(0, ) * 7))
