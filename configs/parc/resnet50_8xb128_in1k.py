# the baseline: a plain ResNet-50
_base_ = './parc-resnet50_8xb128_in1k.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 0, 0)))
