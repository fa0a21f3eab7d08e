from plugconv_mm.engine.hooks.atomic_checkpoint import AtomicCheckpointHook
from plugconv_mm.engine.hooks.check_finite import CheckFiniteHook
from plugconv_mm.engine.hooks.draw_classes import DrawClassesHook
from plugconv_mm.engine.hooks.dynamic_sparsity import DynamicSparsityHook
from plugconv_mm.engine.hooks.kernel_warehouse_temperature import KernelWarehouseTemperatureHook
from plugconv_mm.engine.hooks.parc_backend import ParCBackendHook
from plugconv_mm.engine.hooks.resumable_randomness import ResumableRandomnessHook
from plugconv_mm.engine.hooks.sync_buffers import SyncBuffersHook
from plugconv_mm.errors import NonFiniteError

__all__ = ['AtomicCheckpointHook', 'CheckFiniteHook', 'DrawClassesHook', 'DynamicSparsityHook',
           'KernelWarehouseTemperatureHook', 'NonFiniteError', 'ParCBackendHook', 'ResumableRandomnessHook',
           'SyncBuffersHook']
