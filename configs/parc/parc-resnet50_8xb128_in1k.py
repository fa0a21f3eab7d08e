_base_ = '../_base_/imagenet_300e.py'

model = dict(backbone=dict(type='plugconv_mm.ParCResNet', depth=50), head=dict(in_channels=2048))
