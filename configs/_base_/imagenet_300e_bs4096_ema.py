# 32 GPUs x 128 images, and evaluation of an exponential moving average
_base_ = './imagenet_300e_bs4096.py'

custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
