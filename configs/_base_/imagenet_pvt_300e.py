# training from scratch as for PVT, 300 epochs of AdamW for 1024 images at a time; the data set comes from another file
_base_ = [
    './models/classifier.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_conformer.py',
    'mmpretrain::_base_/default_runtime.py',
    './hooks.py',
]
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    backbone=dict(drop_path_rate=0.1),
    head=dict(type='plugconv_mm.DropoutLinearClsHead'),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
