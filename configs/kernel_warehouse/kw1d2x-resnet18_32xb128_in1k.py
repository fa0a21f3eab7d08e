_base_ = './kw1x-resnet18_32xb128_in1k.py'

model = dict(
    backbone=dict(cell_num_ratio=1 / 2, cell_inplane_ratio=1 / 2, cell_outplane_ratio=1 / 2, drop_path_rate=0.))
