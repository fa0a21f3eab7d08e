_base_ = ['mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

model = dict(neck=dict(type='plugconv_mm.HorFPN'))
