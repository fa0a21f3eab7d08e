_base_ = [
    '../_base_/models/classifier.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_256.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_conformer.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/hooks.py',
]
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    backbone=dict(type='plugconv_mm.TransCNN', arch='tiny'),
    head=dict(in_channels=512),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
train_dataloader = dict(batch_size=128)
