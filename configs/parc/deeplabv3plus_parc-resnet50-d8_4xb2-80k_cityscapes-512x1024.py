_base_ = ['mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCResNet',
        depth=50,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parc_resnet50.pth')))
