_base_ = './transcnn-tiny_8xb128_in1k-256px.py'

model = dict(backbone=dict(arch='small'))
