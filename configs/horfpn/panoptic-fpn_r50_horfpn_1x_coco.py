_base_ = 'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['plugconv_mm'])

model = dict(neck=dict(type='plugconv_mm.HorFPN'))
# the base config has an empty list, so that ../_base_/hooks.py cannot be a base as well
custom_hooks = [dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')]
