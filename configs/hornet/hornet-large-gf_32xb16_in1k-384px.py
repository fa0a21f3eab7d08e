_base_ = './hornet-large-7x7_32xb16_in1k-384px.py'

model = dict(
    backbone=dict(arch='large-gf-img384'), init_cfg=dict(checkpoint='checkpoints/hornet_large_gf_in22k.pth'))
