_base_ = './kw1x-mobilenetv2_8xb32_in1k.py'

model = dict(backbone=dict(cell_num_ratio=1 / 2), head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')))
