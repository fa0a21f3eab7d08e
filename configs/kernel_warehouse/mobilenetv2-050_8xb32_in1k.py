# the baseline: a plain MobileNetV2 of half the width
_base_ = './mobilenetv2_8xb32_in1k.py'

model = dict(backbone=dict(widen_factor=0.5))
