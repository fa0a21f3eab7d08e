# the baseline: a plain ConvNeXt-T
_base_ = ['../_base_/cascade-mask-rcnn_lr-decay_ms-480-800-3x_coco.py', '../_base_/models/convnext_tiny.py']
custom_imports = dict(imports=['plugconv_mm', 'mmpretrain.models'])

model = dict(backbone=dict(_base_.convnext_tiny, _delete_=True), neck=dict(in_channels=[96, 192, 384, 768]))
