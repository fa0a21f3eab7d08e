# the baseline: a plain ResNet-18
_base_ = './kw1x-resnet18_32xb128_in1k.py'

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=18))
custom_hooks = _base_.custom_hooks[:-1]  # no temperature
