_base_ = './transcnn-tiny_8xb128_in1k-256px.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=768))
