_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['plugconv_mm'])

# kernels of 31x31 in the place of all depthwise 5x5, in backbone and neck, which they hold at first
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    rules=[
        dict(
            target='re:.*',
            where=dict(kernel_size=5, groups='depthwise'),
            to=dict(type='plugconv_mm.DecomposedLargeKernelConv2d', large_kernel=31),
            start='embed')
    ])
custom_hooks = [
    *_base_.custom_hooks, dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')
]
