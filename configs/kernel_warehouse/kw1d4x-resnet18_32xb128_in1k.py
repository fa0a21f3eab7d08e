_base_ = './kw1d2x-resnet18_32xb128_in1k.py'

model = dict(backbone=dict(cell_num_ratio=1 / 4), train_cfg=None)
