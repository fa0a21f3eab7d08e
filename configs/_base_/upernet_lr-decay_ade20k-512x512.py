# UPerNet on ADE20K with learning rates that decay from the head to the stem
_base_ = './upernet_ade20k-512x512.py'

optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6))
