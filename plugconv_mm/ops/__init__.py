"""Operators in plain PyTorch."""
from plugconv_mm.ops.h_mhsa import HMHSA

__all__ = ['HMHSA']
