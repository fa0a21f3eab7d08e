"""Operators in plain PyTorch."""
from plugconv_mm.ops.gnconv import GlobalLocalFilter, GnConv2d
from plugconv_mm.ops.h_mhsa import HMHSA
from plugconv_mm.ops.layer_norm import LayerNorm2d
from plugconv_mm.ops.parc import ParC2d, ParCHW2d, parc_conv2d

__all__ = ['GlobalLocalFilter', 'GnConv2d', 'HMHSA', 'LayerNorm2d', 'ParC2d', 'ParCHW2d', 'parc_conv2d']
