# mmseg's Mask2Former, with the learning rates, weight decay and stochastic depth of HorNet-T in UPerNet
_base_ = ['mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py', '../_base_/hooks.py']
custom_imports = dict(imports=['plugconv_mm', 'mmdet.models'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='plugconv_mm.HorNet',
        arch='tiny-gf-img384',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_tiny_gf.pth')),
    decode_head=dict(in_channels=[64, 128, 256, 512]))
optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6))
