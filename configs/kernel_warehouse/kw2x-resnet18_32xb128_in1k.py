_base_ = './kw1x-resnet18_32xb128_in1k.py'

model = dict(backbone=dict(cell_num_ratio=2))
