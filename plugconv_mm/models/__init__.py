"""The plug-ins for OpenMMLab's configs, built from :mod:`plugconv_mm.ops`."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins
from plugconv_mm.models import backbones, cls_heads, decode_heads, necks

if TYPE_CHECKING:
    from plugconv_mm.models.backbones import HATNet as HATNet
    from plugconv_mm.models.backbones import HorNet as HorNet
    from plugconv_mm.models.backbones import KWConvNeXt as KWConvNeXt
    from plugconv_mm.models.backbones import KWMobileNetV2 as KWMobileNetV2
    from plugconv_mm.models.backbones import KWResNet as KWResNet
    from plugconv_mm.models.backbones import ParCConvNeXt as ParCConvNeXt
    from plugconv_mm.models.backbones import ParCMobileNetV2 as ParCMobileNetV2
    from plugconv_mm.models.backbones import ParCNet as ParCNet
    from plugconv_mm.models.backbones import ParCResNet as ParCResNet
    from plugconv_mm.models.backbones import SLaK as SLaK
    from plugconv_mm.models.backbones import TransCNN as TransCNN
    from plugconv_mm.models.box_tta import BoxTTAModel as BoxTTAModel
    from plugconv_mm.models.cls_heads import DropoutLinearClsHead as DropoutLinearClsHead
    from plugconv_mm.models.cls_heads import KWLinearClsHead as KWLinearClsHead
    from plugconv_mm.models.convs import DecomposedLargeKernelConv2d as DecomposedLargeKernelConv2d
    from plugconv_mm.models.convs import GlobalLocalFilter as GlobalLocalFilter
    from plugconv_mm.models.convs import GnConv2d as GnConv2d
    from plugconv_mm.models.convs import KWConv2d as KWConv2d
    from plugconv_mm.models.convs import LargeKernelConv2d as LargeKernelConv2d
    from plugconv_mm.models.convs import ParC2d as ParC2d
    from plugconv_mm.models.convs import ParCHW2d as ParCHW2d
    from plugconv_mm.models.convs import ParCMixer as ParCMixer
    from plugconv_mm.models.decode_heads import HorUPerHead as HorUPerHead
    from plugconv_mm.models.decode_heads import PointwiseASPPHead as PointwiseASPPHead
    from plugconv_mm.models.necks import ExpandedPooling as ExpandedPooling
    from plugconv_mm.models.necks import HorFPN as HorFPN
    from plugconv_mm.models.plugged_model import plug as plug

__getattr__, __dir__, __all__ = plug_ins(
    __name__,
    backbones=backbones.__all__,
    cls_heads=cls_heads.__all__,
    convs=[
        'DecomposedLargeKernelConv2d', 'GlobalLocalFilter', 'GnConv2d', 'KWConv2d',
        'LargeKernelConv2d', 'ParC2d', 'ParCHW2d', 'ParCMixer'],
    decode_heads=decode_heads.__all__,
    necks=necks.__all__,
    box_tta=['BoxTTAModel'],
    plugged_model=['plug'])
