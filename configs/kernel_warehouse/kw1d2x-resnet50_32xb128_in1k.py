_base_ = './kw1x-resnet50_32xb128_in1k.py'

model = dict(
    backbone=dict(
        cell_num_ratio=1 / 2, cell_inplane_ratio=1 / 2, cell_outplane_ratio=1 / 2, nonlocal_basis_ratio=1 / 16))
