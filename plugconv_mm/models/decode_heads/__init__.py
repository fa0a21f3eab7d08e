"""Decode heads."""
from plugconv_mm.models.decode_heads.hor_uper_head import HorUPerHead

__all__ = ['HorUPerHead']
