from plugconv_mm.engine.hooks.check_finite import CheckFiniteHook, NonFiniteError

__all__ = ['CheckFiniteHook', 'NonFiniteError']
