# the baseline: a plain ConvNeXt-T
_base_ = ['./mask-rcnn_kw1x-convnext-tiny_fpn_ms-480-800-1x_coco.py', '../_base_/models/convnext_tiny.py']
custom_imports = dict(imports=['plugconv_mm', 'mmpretrain.models'])

model = dict(backbone=dict(_base_.convnext_tiny, _delete_=True))
