"""Plug-ins."""
from plugconv_mm.models import backbones, decode_heads, necks

__all__ = ['backbones', 'decode_heads', 'necks']
