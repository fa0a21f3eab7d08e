# the baseline: a plain ResNet-50
_base_ = '../_base_/imagenet_300e_bs4096.py'

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=50, drop_path_rate=0.1), head=dict(in_channels=2048))
