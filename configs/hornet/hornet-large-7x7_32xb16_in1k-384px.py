# fine-tuning for 30 epochs of a classifier of ImageNet-21K, but for its last layer
_base_ = '../_base_/imagenet_300e_bs4096_ema.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=384)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # not cropped, and without regard to the ratio of the sides
    dict(type='Resize', scale=(384, 384), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    backbone=dict(type='plugconv_mm.HorNet', arch='large-7x7', drop_path_rate=0.4, gap_before_final_norm=True),
    neck=None,
    head=dict(in_channels=1536),
    train_cfg=None,
    # of the whole model: the norm before the classifier starts from it, too
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_large_7x7_in22k.pth'))

train_cfg = dict(max_epochs=30)
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, convert_to_iter_based=True)
optim_wrapper = dict(
    optimizer=dict(lr=5e-5, weight_decay=1e-8),
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7, decay_type='layer_wise', num_layers=12),
    clip_grad=dict(max_norm=1))
auto_scale_lr = dict(base_batch_size=512)
