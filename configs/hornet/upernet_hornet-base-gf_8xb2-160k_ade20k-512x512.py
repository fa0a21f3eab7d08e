_base_ = './upernet_hornet-base-7x7_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='base-gf-img384', drop_path_rate=0.5, init_cfg=dict(checkpoint='checkpoints/hornet_base_gf.pth')))
optim_wrapper = dict(clip_grad=dict(max_norm=1))
