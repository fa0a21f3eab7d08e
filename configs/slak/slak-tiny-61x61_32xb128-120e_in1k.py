_base_ = './slak-tiny-51x51_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_size=(61, 59, 57, 13, 5)))
