_base_ = './transcnn-tiny_8xb128_in1k-256px.py'

model = dict(backbone=dict(arch='medium'), head=dict(in_channels=640))
