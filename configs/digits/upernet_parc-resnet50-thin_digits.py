_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/digits_semantic.py',
    '../_base_/schedules/digits_440it.py',
    '../_base_/mmseg_runtime.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['plugconv_mm'])

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(
        type='plugconv_mm.ParCResNet', depth=50, base_channels=16, norm_cfg=norm_cfg, zero_init_residual=False),
    decode_head=dict(
        in_channels=[64, 128, 256, 512],
        pool_scales=(2, 3),  # of a map of 5x5
        channels=32,
        dropout_ratio=0,
        num_classes=11,
        norm_cfg=norm_cfg,
        # with the default deviation of 0.01 the rows of the digits are almost equal for hundreds of steps
        init_cfg=dict(type='Normal', std=0.2, override=dict(name='conv_seg')),
        # nine of ten pixels are background
        loss_decode=dict(class_weight=[0.2] + [1.0] * 10)),
    auxiliary_head=None)
