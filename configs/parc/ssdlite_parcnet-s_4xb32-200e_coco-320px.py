# ParC-Net's recipe and boxes. The layers of neck and head are mmdet's: the published ones widen the first two maps to
# 512 and 256 channels in front of the predictions, have no 1x1 in front of the 3x3 of stride 2, and a mean over all
# positions as the last map.
_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
custom_imports = dict(imports=['plugconv_mm'])

_channels = (128, 160, 256, 128, 128, 64)
_sizes = [320 * (0.1 + 0.95 * i / 6) for i in range(7)]  # of the smaller of both squares on each map
model = dict(
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=False),  # BGR between 0 and 1
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.ParCNet',
        arch='s',
        out_indices=(2, 3),
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/parcnet_s.pth')),
    neck=dict(
        in_channels=_channels[:2],
        out_channels=_channels,
        norm_cfg=dict(_delete_=True, type='SyncBN'),
        act_cfg=dict(type='ReLU'),
        init_cfg=dict(_delete_=True, type='Xavier', layer='Conv2d', distribution='uniform')),
    bbox_head=dict(
        in_channels=_channels,
        norm_cfg=dict(_delete_=True, type='SyncBN'),
        act_cfg=dict(type='ReLU'),
        init_cfg=dict(_delete_=True, type='Xavier', layer='Conv2d', distribution='uniform'),
        anchor_generator=dict(
            ratios=[[2, 3], [2, 3], [2, 3], [2, 3], [2, 3], [2]], min_sizes=_sizes[:-1], max_sizes=_sizes[1:])),
    test_cfg=dict(nms=dict(iou_threshold=0.5), score_thr=0.01))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='MinIoURandomCrop', min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type='PhotoMetricDistortion', brightness_delta=51, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5),
         hue_delta=12),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Resize', scale=(320, 320), keep_ratio=False),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(times=1, dataset=dict(pipeline=train_pipeline)))

train_cfg = dict(max_epochs=200, val_interval=5)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=9e-4, weight_decay=0.02))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=0, end=200, T_max=200),
]
# the base config has hooks of its own, so that ../_base_/hooks.py cannot be a base as well
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='plugconv_mm.CheckFiniteHook'),
    dict(type='plugconv_mm.SyncBuffersHook'),
    dict(type='EMAHook', momentum=5e-4, priority='ABOVE_NORMAL'),
]
auto_scale_lr = dict(base_batch_size=128)
