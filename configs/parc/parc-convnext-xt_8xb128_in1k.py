_base_ = '../_base_/imagenet_300e.py'

model = dict(
    backbone=dict(type='plugconv_mm.ParCConvNeXt', arch='xt', drop_path_rate=0.1, gap_before_final_norm=True),
    neck=None,
    head=dict(in_channels=384))
