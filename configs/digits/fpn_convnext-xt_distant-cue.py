_base_ = './fpn_resnet50_distant-cue.py'

model = dict(
    backbone=dict(
        _delete_=True, type='plugconv_mm.ParCConvNeXt', arch='xt', parc_blocks=(0, 0, 0, 0), layer_scale_init=1.0),
    neck=dict(in_channels=[48, 96, 192, 384]))
