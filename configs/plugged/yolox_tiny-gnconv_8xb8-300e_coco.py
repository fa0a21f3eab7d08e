_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
custom_imports = dict(imports=['plugconv_mm'])

# gnConv in the place of the 3x3 convolutions in the blocks of the PAFPN
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    rules=[
        dict(
            target=r're:neck\..*_blocks\..*\.conv2\.conv',
            where=dict(kernel_size=3),
            to=dict(type='plugconv_mm.GnConv2d', order=3))
    ])
custom_hooks = [
    *_base_.custom_hooks, dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')
]
