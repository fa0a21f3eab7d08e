"""The operators as convolutions of mmcv, ``conv_cfg=dict(type='plugconv_mm.GnConv2d')``.

They are those of :mod:`plugconv_mm.plugging.convs`, registered.
"""
from plugconv_mm.plugging.convs import (
    CONVS,
    DecomposedLargeKernelConv2d,
    GlobalLocalFilter,
    GnConv2d,
    KWConv2d,
    LargeKernelConv2d,
    ParC2d,
    ParCHW2d,
    ParCMixer,
)
from plugconv_mm.registry import MODELS

for conv in CONVS.values():
    MODELS.register_module(module=conv)

__all__ = ['DecomposedLargeKernelConv2d', 'GlobalLocalFilter', 'GnConv2d', 'KWConv2d', 'LargeKernelConv2d', 'ParC2d',
           'ParCHW2d', 'ParCMixer']
