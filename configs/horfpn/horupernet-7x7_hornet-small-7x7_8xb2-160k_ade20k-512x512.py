_base_ = '../hornet/upernet_hornet-small-7x7_8xb2-160k_ade20k-512x512.py'

model = dict(decode_head=dict(type='plugconv_mm.HorUPerHead'))
