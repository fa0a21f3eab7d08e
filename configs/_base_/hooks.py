# what all configs have; one that adds a hook says custom_hooks = [*_base_.custom_hooks, ...]
custom_hooks = [dict(type='plugconv_mm.CheckFiniteHook'), dict(type='plugconv_mm.SyncBuffersHook')]
