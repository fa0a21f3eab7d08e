_base_ = './hornet-large-7x7_64xb64_in21k.py'

model = dict(backbone=dict(arch='large-gf'))
optim_wrapper = dict(clip_grad=dict(max_norm=1))
