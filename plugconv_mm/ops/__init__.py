"""Operators in plain PyTorch."""
from plugconv_mm.ops.gnconv import GlobalLocalFilter, GnConv2d

__all__ = ['GlobalLocalFilter', 'GnConv2d']
