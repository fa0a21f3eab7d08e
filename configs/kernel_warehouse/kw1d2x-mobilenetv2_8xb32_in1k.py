_base_ = './kw1x-mobilenetv2_8xb32_in1k.py'

model = dict(
    backbone=dict(cell_num_ratio=1 / 2),
    head=dict(
        type='plugconv_mm.KWLinearClsHead', dropout=0., loss=dict(_delete_=True, type='CrossEntropyLoss')))
