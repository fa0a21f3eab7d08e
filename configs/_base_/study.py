# features of strides 4 and 8, a neck and a small head, trained for a minute on one core on the data set of digits with
# a distant cue, see plugconv_mm/datasets/distant_cue.py and tools/misc/controlled_study.py
_base_ = ['./mmseg_runtime.py', './runtime.py']
custom_imports = dict(imports=['plugconv_mm'])

data_root = 'data/distant_cue/'
metainfo = dict(classes=('background', 'yellow', 'blue'), palette=[[40, 40, 40], [230, 220, 50], [60, 60, 200]])
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        img_suffix='.png',
        data_prefix=dict(img_path='images/training', seg_map_path='cue/training'),
        metainfo=metainfo,
        pipeline=pipeline))
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        img_suffix='.png',
        data_prefix=dict(img_path='images/validation', seg_map_path='cue/validation'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[70] * 3, std=[45] * 3, pad_val=0, seg_pad_val=255, size=(128, 128)),
    # only two stages of bottlenecks with 3x3 convolutions, whose receptive field is smaller than 72 pixels
    backbone=dict(
        type='plugconv_mm.ParCResNet',
        base_channels=8,
        parc_blocks=(0, 0, 0, 0),
        zero_init_residual=False,
        out_indices=(0, 1)),
    neck=dict(type='mmdet.FPN', in_channels=[32, 64], out_channels=32, num_outs=2),
    decode_head=dict(
        type='FPNHead',
        in_channels=[32, 32],
        in_index=[0, 1],
        feature_strides=[4, 8],
        channels=32,
        dropout_ratio=0,
        num_classes=3,
        norm_cfg=norm_cfg,
        align_corners=False,
        # with the default deviation of 0.01 the rows of the digits are almost equal for hundreds of steps
        init_cfg=dict(type='Normal', std=0.2, override=dict(name='conv_seg')),
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.3, 1.0, 1.0])),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05), clip_grad=dict(max_norm=5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=500, T_max=460),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=500, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(interval=-1, save_last=False), visualization=dict(draw=False))
