# the baseline: a plain MobileNetV2
_base_ = './upernet_parc-mobilenetv2_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(parc_blocks=(0, ) * 7, init_cfg=dict(checkpoint='checkpoints/mobilenetv2_8xb128.pth')))
