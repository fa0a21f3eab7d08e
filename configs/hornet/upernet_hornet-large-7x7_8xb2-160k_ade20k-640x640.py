_base_ = '../_base_/upernet_ade20k-640x640.py'

model = dict(
    backbone=dict(
        type='plugconv_mm.HorNet',
        arch='large-7x7',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/hornet_large_7x7_in22k.pth')),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768))
optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.8, decay_type='stage_wise', num_layers=12))
