_base_ = './upernet_r50_8xb2-160k_ade20k-512x512.py'

model = dict(decode_head=dict(type='plugconv_mm.HorUPerHead', filter='gf'))
optim_wrapper = dict(clip_grad=dict(max_norm=0.1))
