_base_ = './mask-rcnn_swin-s_fpn_ms-480-800-1x_coco.py'

model = dict(neck=dict(type='plugconv_mm.HorFPN'))
