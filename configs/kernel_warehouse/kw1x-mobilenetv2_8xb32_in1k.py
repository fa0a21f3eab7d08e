_base_ = '../_base_/imagenet_150e_sgd.py'

model = dict(backbone=dict(type='plugconv_mm.KWMobileNetV2', norm_eval=False), head=dict(in_channels=1280))
custom_hooks = [*_base_.custom_hooks, dict(type='plugconv_mm.KernelWarehouseTemperatureHook', epochs=15)]
