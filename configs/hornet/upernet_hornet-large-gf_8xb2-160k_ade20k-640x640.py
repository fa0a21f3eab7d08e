_base_ = './upernet_hornet-large-7x7_8xb2-160k_ade20k-640x640.py'

model = dict(
    backbone=dict(
        arch='large-gf-img384', init_cfg=dict(checkpoint='checkpoints/hornet_large_gf_in22k.pth')))
optim_wrapper = dict(clip_grad=dict(max_norm=0.1))
