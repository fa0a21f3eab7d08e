_base_ = './upernet_hornet-small-7x7_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='small-gf-img384', init_cfg=dict(checkpoint='checkpoints/hornet_small_gf.pth')))
optim_wrapper = dict(clip_grad=dict(max_norm=1))
