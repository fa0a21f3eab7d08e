# hooks of all configs; a config that adds one has custom_hooks = [*_base_.custom_hooks, ...]
custom_hooks = [dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')]
