# the baseline: a plain ResNet-18
_base_ = '../_base_/imagenet_300e_bs4096.py'

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=18), head=dict(in_channels=512))
