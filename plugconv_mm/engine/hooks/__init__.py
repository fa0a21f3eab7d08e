from plugconv_mm.engine.hooks.check_finite import CheckFiniteHook, NonFiniteError
from plugconv_mm.engine.hooks.parc_backend import ParCBackendHook
from plugconv_mm.engine.hooks.sync_buffers import SyncBuffersHook

__all__ = ['CheckFiniteHook', 'NonFiniteError', 'ParCBackendHook', 'SyncBuffersHook']
