"""The plug-ins for OpenMMLab's configs, built from :mod:`plugconv_mm.ops`."""
from plugconv_mm.compat.packages import plug_ins
from plugconv_mm.models import backbones, decode_heads, necks

__getattr__, __all__ = plug_ins(
    __name__,
    backbones=backbones.__all__,
    convs=['DecomposedLargeKernelConv2d', 'GlobalLocalFilter', 'GnConv2d', 'KWConv2d', 'ParC2d', 'ParCHW2d'],
    decode_heads=decode_heads.__all__,
    necks=necks.__all__,
    box_tta=['BoxTTAModel'])
