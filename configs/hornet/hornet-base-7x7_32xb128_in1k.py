_base_ = '../_base_/imagenet_300e_bs4096_ema.py'

model = dict(
    backbone=dict(type='plugconv_mm.HorNet', arch='base-7x7', drop_path_rate=0.5, gap_before_final_norm=True),
    neck=None,
    head=dict(in_channels=1024))
optim_wrapper = dict(clip_grad=dict(max_norm=5))
