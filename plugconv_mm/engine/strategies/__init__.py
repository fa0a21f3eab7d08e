from plugconv_mm.engine.strategies.fsdp import FSDPStrategy

__all__ = ['FSDPStrategy']
