_base_ = './hat-net-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.3), head=dict(in_channels=640))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
