_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    '../_base_/datasets/digits_semantic.py',
    '../_base_/schedules/digits_300it.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['plugconv_mm'])

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        _delete_=True, type='plugconv_mm.ParCResNet', depth=50, base_channels=16, norm_cfg=norm_cfg, norm_eval=False),
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=64, num_classes=11, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=11, norm_cfg=norm_cfg))
