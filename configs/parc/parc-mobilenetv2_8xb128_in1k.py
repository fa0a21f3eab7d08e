_base_ = '../_base_/imagenet_300e.py'

model = dict(
    backbone=dict(type='plugconv_mm.ParCMobileNetV2'),
    head=dict(type='plugconv_mm.DropoutLinearClsHead', in_channels=1280))
