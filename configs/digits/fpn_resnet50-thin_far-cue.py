# a digit's class is the colour of a disc far away from it; the baseline of 3x3 convolutions
_base_ = '../_base_/study.py'

test_dataloader = _base_.val_dataloader
test_evaluator = _base_.val_evaluator
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(interval=500))
