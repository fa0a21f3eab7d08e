_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

model = dict(neck=dict(type='plugconv_mm.HorFPN'))
