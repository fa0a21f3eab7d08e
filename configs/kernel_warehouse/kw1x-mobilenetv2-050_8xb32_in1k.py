_base_ = './kw1x-mobilenetv2_8xb32_in1k.py'

model = dict(backbone=dict(widen_factor=0.5), head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')))
