_base_ = './upernet_hornet-tiny-7x7_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='tiny-gf-img384', init_cfg=dict(checkpoint='checkpoints/hornet_tiny_gf.pth')))
optim_wrapper = dict(clip_grad=dict(max_norm=1))
