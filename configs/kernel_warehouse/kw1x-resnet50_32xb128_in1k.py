_base_ = './kw1x-resnet18_32xb128_in1k.py'

model = dict(backbone=dict(depth=50), head=dict(in_channels=2048))
