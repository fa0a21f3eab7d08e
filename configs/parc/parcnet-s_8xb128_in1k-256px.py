# ParC-Net's recipe, without its training at several resolutions between 160 and 320 pixels
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/hooks.py',
]
custom_imports = dict(imports=['plugconv_mm'])

# Images of the published code are BGR between 0 and 1.
data_preprocessor = dict(mean=[0., 0., 0.], std=[255., 255., 255.], to_rgb=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='plugconv_mm.ParCNet', arch='s', out_indices=(3, )),
    neck=dict(type='plugconv_mm.ExpandedPooling', in_channels=160, out_channels=640),
    head=dict(
        type='plugconv_mm.DropoutLinearClsHead',
        num_classes=1000,
        in_channels=640,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=256),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=288, edge='short'),
    dict(type='CenterCrop', crop_size=256),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.025))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3000),
    dict(type='CosineAnnealingLR', eta_min=4e-4, by_epoch=True),
]
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=5e-4, priority='ABOVE_NORMAL')]
