# on top of the default_runtime of mmdet or mmseg
custom_hooks = [dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')]
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
