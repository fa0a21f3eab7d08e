from plugconv_mm.engine.hooks.atomic_checkpoint import AtomicCheckpointHook
from plugconv_mm.engine.hooks.check_finite import CheckFiniteHook, NonFiniteError
from plugconv_mm.engine.hooks.dynamic_sparsity import DynamicSparsityHook
from plugconv_mm.engine.hooks.kernel_warehouse_temperature import KernelWarehouseTemperatureHook
from plugconv_mm.engine.hooks.resumable_randomness import ResumableRandomnessHook

__all__ = ['AtomicCheckpointHook', 'CheckFiniteHook', 'DynamicSparsityHook', 'KernelWarehouseTemperatureHook',
           'NonFiniteError', 'ResumableRandomnessHook']
