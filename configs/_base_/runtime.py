# on top of the default_runtime of mmdet or mmseg
_base_ = './hooks.py'

auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
