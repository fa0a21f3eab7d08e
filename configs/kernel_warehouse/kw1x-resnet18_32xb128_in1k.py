_base_ = '../_base_/imagenet_300e_bs4096.py'

model = dict(
    backbone=dict(type='plugconv_mm.KWResNet', depth=18, norm_eval=False, drop_path_rate=0.1),
    head=dict(in_channels=512))
custom_hooks = [*_base_.custom_hooks, dict(type='plugconv_mm.KernelWarehouseTemperatureHook', epochs=20)]
