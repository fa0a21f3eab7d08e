# the baseline: a plain ConvNeXt-T
_base_ = './cascade-mask-rcnn_slak-tiny_fpn_ms-480-800-1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCConvNeXt',
        arch='tiny',
        parc_blocks=(0, 0, 0, 0),
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]))
