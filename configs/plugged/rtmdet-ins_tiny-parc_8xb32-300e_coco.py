_base_ = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['plugconv_mm'])

# ParC beside the depthwise 5x5 of the last stage
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    input_size=(640, 640),
    rules=[
        dict(
            target=r're:backbone\.stage4\..*',
            where=dict(kernel_size=5, groups='depthwise'),
            to=dict(type='plugconv_mm.ParCHW2d', meta_size='auto'),
            start='residual')
    ])
custom_hooks = [
    *_base_.custom_hooks, dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')
]
