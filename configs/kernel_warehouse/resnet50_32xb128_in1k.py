# the baseline: a plain ResNet-50
_base_ = './kw1x-resnet50_32xb128_in1k.py'

model = dict(backbone=dict(_delete_=True, type='ResNet', depth=50, drop_path_rate=0.1))
custom_hooks = _base_.custom_hooks[:-1]  # no temperature
