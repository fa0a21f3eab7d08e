_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

# ParC on the whole map in the place of the attention within windows, in the last stage
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    rules=[dict(target=r're:backbone\.stages\.3\..*\.attn', to=dict(type='plugconv_mm.ParCMixer'))])
