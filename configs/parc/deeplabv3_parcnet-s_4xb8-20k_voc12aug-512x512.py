# ParC-Net's recipe without the images of COCO that it adds to VOC's: its 50 epochs are of both, 20k iterations are 60
# epochs of VOC
_base_ = [
    'mmseg::_base_/datasets/pascal_voc12_aug.py',
    'mmseg::_base_/schedules/schedule_20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/hooks.py',
]
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # ParC-Net takes BGR between 0 and 1
        mean=[0, 0, 0],
        std=[255, 255, 255],
        bgr_to_rgb=False,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512)),
    backbone=dict(
        type='plugconv_mm.ParCNet',
        arch='s',
        strides=(2, 2, 2, 1),
        out_indices=(3, ),
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parcnet_s.pth')),
    decode_head=dict(
        type='plugconv_mm.PointwiseASPPHead',
        in_channels=160,
        in_index=0,
        channels=256,
        dilations=(1, 6, 12, 18),
        pyramid_dropout_ratio=0.1,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=dict(type='SyncBN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=[(2048, 384), (2048, 768)], keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512), keep_ratio=False),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(datasets=[
        dict(_base_.dataset_train, pipeline=train_pipeline), dict(_base_.dataset_aug, pipeline=train_pipeline)]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=9e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=500, end=20000),
]
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=5e-4, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(enable=False, base_batch_size=32)
