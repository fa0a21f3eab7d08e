# 32 GPUs x 128 images
_base_ = './imagenet_300e.py'

optim_wrapper = dict(optimizer=dict(lr=4e-3))
auto_scale_lr = dict(base_batch_size=4096)
