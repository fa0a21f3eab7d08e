# the baseline: a plain ConvNeXt-T
_base_ = './cascade-mask-rcnn_convnext-tiny_fpn_ms-480-800-3x_coco.py'

train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
