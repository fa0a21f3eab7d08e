_base_ = ['mmpretrain::deit/deit-tiny_4xb256_in1k.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

# a ConvNet: ParC in the place of all attention
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    input_size=(224, 224),
    rules=[dict(target=r're:backbone\.layers\..*\.attn', to=dict(type='plugconv_mm.ParCMixer', meta_size='auto'))])
