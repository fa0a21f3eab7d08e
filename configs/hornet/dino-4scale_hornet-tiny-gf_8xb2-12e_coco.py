# mmdet's DINO, with the decay of learning rates and the stochastic depth of HorNet-T in Cascade Mask R-CNN
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.HorNet',
        arch='tiny-gf',
        out_indices=(1, 2, 3),
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_tiny_gf.pth')),
    neck=dict(in_channels=[128, 256, 512]))
optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7, decay_type='layer_wise', num_layers=12))
