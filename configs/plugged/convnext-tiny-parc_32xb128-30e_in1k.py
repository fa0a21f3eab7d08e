_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'
custom_imports = dict(imports=['plugconv_mm'])

# ParC beside the 7x7 of the blocks that have it in ParC-ConvNeXt
parc = dict(type='plugconv_mm.ParCHW2d', meta_size='auto')
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/'
    'convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth',
    input_size=(224, 224),
    rules=[
        dict(target=r're:backbone\.stages\.2\..*\.depthwise_conv', where=dict(last=3), to=parc, start='residual'),
        dict(target=r're:backbone\.stages\.3\..*\.depthwise_conv', where=dict(last=1), to=parc, start='residual')
    ])

# 30 epochs at a small rate
train_cfg = dict(max_epochs=30)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, convert_to_iter_based=True)]
custom_hooks = [
    *_base_.custom_hooks, dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')
]
