# the baseline: a plain ConvNeXt-T
_base_ = ['../_base_/upernet_lr-decay_ade20k-512x512.py', '../_base_/models/convnext_tiny.py']
custom_imports = dict(imports=['plugconv_mm', 'mmpretrain.models'])

model = dict(
    backbone=_base_.convnext_tiny,
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
