_base_ = './transcnn-tiny_8xb128_in1k-256px.py'

model = dict(backbone=dict(arch='medium', drop_path_rate=0.3), head=dict(in_channels=640))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
