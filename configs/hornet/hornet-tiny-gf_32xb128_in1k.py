_base_ = './hornet-tiny-7x7_32xb128_in1k.py'

model = dict(backbone=dict(arch='tiny-gf'))
optim_wrapper = dict(clip_grad=dict(max_norm=1))
