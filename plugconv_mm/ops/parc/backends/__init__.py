"""Backends of ParC: the forms in which the circular convolution is computed.

To add one, write its class beside the others, name it in ``BACKENDS``, and give it rows in the tables of
``plugconv_mm.ops.parc.cost``.
"""
from plugconv_mm.ops.parc.backends.base import Backend, Geometry
from plugconv_mm.ops.parc.backends.dft import DFT
from plugconv_mm.ops.parc.backends.fft import FFT
from plugconv_mm.ops.parc.backends.gemm import GEMM
from plugconv_mm.ops.parc.backends.spatial import Spatial

BACKENDS: dict[str, Backend] = {'spatial': Spatial(), 'fft': FFT(), 'gemm': GEMM()}
# The form in which a dense FFT is exported; never chosen otherwise.
EXPORT_BACKENDS: dict[str, Backend] = {'dft': DFT()}

__all__ = ['BACKENDS', 'EXPORT_BACKENDS', 'Backend', 'Geometry']
