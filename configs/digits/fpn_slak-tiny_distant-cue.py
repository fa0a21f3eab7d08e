_base_ = './fpn_resnet50_distant-cue.py'

model = dict(
    backbone=dict(
        _delete_=True, type='plugconv_mm.SLaK', arch='tiny', layer_scale_init=1.0),
    neck=dict(in_channels=[124, 249, 499, 998]))
