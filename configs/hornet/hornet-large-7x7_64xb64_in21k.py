# pre-training on all of ImageNet for 90 epochs; there is no validation set
_base_ = '../_base_/imagenet_300e.py'

data_preprocessor = dict(num_classes=21841)
model = dict(
    backbone=dict(type='plugconv_mm.HorNet', arch='large-7x7', drop_path_rate=0.2, gap_before_final_norm=True),
    neck=None,
    head=dict(in_channels=1536, num_classes=21841))
train_dataloader = dict(batch_size=64, dataset=dict(type='ImageNet21k', data_root='data/imagenet21k'))
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None

train_cfg = dict(max_epochs=90)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5),
]
optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.1), clip_grad=dict(max_norm=5))
auto_scale_lr = dict(base_batch_size=4096)
