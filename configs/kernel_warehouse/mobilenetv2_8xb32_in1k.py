# the baseline: a plain MobileNetV2
_base_ = '../_base_/imagenet_150e_sgd.py'

model = dict(
    backbone=dict(type='plugconv_mm.ParCMobileNetV2', parc_blocks=(0, ) * 7, out_indices=(3, )),
    head=dict(in_channels=1280, loss=dict(_delete_=True, type='CrossEntropyLoss')))
