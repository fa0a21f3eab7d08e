_base_ = '../_base_/imagenet_300e_bs4096_ema.py'

model = dict(
    backbone=dict(type='plugconv_mm.SLaK', arch='small', drop_path_rate=0.4, gap_before_final_norm=True),
    neck=None,
    head=dict(in_channels=998))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='plugconv_mm.DynamicSparsityHook', prune_rate=0.3, update_frequency=100),
]
