# 32 GPUs x 128 images, and evaluation of an exponential moving average
_base_ = './imagenet_300e.py'

optim_wrapper = dict(optimizer=dict(lr=4e-3))
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=4096)
