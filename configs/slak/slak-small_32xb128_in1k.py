_base_ = './slak-tiny_32xb128_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type='plugconv_mm.DynamicSparsityHook', prune_rate=0.3, update_frequency=100),
]
