_base_ = '../_base_/imagenet_300e.py'

model = dict(
    backbone=dict(type='plugconv_mm.HATNet', arch='tiny', drop_path_rate=0.1),
    head=dict(type='plugconv_mm.DropoutLinearClsHead', in_channels=384))
