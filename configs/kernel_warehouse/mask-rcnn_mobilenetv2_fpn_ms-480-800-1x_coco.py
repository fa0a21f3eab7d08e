# the baseline: a plain MobileNetV2
_base_ = './mask-rcnn_kw1x-mobilenetv2_fpn_ms-480-800-1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCMobileNetV2',
        parc_blocks=(0, ) * 7,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/mobilenetv2_8xb32.pth')))
