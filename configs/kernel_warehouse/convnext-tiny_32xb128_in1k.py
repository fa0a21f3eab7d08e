# the baseline: a plain ConvNeXt-T
_base_ = '../_base_/imagenet_300e_bs4096.py'

model = dict(
    backbone=dict(type='plugconv_mm.ParCConvNeXt', arch='tiny', parc_blocks=(0, 0, 0, 0), drop_path_rate=0.1),
    head=dict(in_channels=768))
