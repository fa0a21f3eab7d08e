# the baseline: a plain ConvNeXt-T
_base_ = '../_base_/imagenet_300e_bs4096_ema.py'

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='tiny', drop_path_rate=0.1),
    neck=None,
    head=dict(in_channels=768))
