# 150 epochs of SGD, with flips and crops only
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/hooks.py',
    '../_base_/models/classifier.py',
]
custom_imports = dict(imports=['plugconv_mm'])

model = dict(backbone=dict(type='plugconv_mm.KWMobileNetV2', norm_eval=False), head=dict(in_channels=1280))

train_cfg = dict(by_epoch=True, max_epochs=150, val_interval=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=4e-5),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0.))
param_scheduler = dict(
    type='CosineAnnealingLR', by_epoch=True, eta_min=1e-6, T_max=150, begin=0, end=150, convert_to_iter_based=True)
auto_scale_lr = dict(base_batch_size=256)
custom_hooks = [*_base_.custom_hooks, dict(type='plugconv_mm.KernelWarehouseTemperatureHook', epochs=15)]
