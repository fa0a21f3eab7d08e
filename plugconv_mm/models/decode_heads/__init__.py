"""Heads of segmentors."""
from plugconv_mm.compat.packages import plug_ins

__getattr__, __all__ = plug_ins(__name__, hor_uper_head=['HorUPerHead'])
