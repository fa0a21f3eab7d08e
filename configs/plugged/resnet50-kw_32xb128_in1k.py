_base_ = '../kernel_warehouse/resnet50_32xb128_in1k.py'

# a warehouse for the convolutions of each size in each stage
kw = dict(type='plugconv_mm.KWConv2d', share='stage')
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    rules=[
        dict(target=rf're:backbone\.layer\d\.\d\.conv{i}', to=kw) for i in (1, 2, 3)
    ])
custom_hooks = [*_base_.custom_hooks, dict(type='plugconv_mm.KernelWarehouseTemperatureHook', epochs=20)]
