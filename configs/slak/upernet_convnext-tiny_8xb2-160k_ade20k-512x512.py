# the baseline: a plain ConvNeXt-T
_base_ = './upernet_slak-tiny_8xb2-160k_ade20k-512x512.py'

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
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
