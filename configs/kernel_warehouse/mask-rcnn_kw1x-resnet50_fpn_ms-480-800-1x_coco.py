_base_ = '../_base_/mask-rcnn_ms-480-800-1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.KWResNet',
        depth=50,
        frozen_stages=1,
        norm_eval=True,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/kw1x_resnet50.pth')))
