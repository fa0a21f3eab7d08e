_base_ = '../_base_/cascade-mask-rcnn_ms-480-800-3x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCResNet',
        depth=50,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_resnet50.pth')))
