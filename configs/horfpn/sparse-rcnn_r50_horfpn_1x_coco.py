_base_ = ['mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

model = dict(neck=dict(type='plugconv_mm.HorFPN'))
