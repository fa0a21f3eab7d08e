# SLaK-T trained for 120 epochs, as the paper compares kernels
_base_ = './slak-tiny_32xb128_in1k.py'

train_cfg = dict(max_epochs=120)
