# the baseline: a plain ResNet-50
_base_ = './upernet_parc-resnet50_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 0, 0), init_cfg=dict(checkpoint='checkpoints/resnet50_8xb128.pth')))
