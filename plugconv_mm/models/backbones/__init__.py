"""Networks of four stages for detectors, segmentors and classifiers."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins

if TYPE_CHECKING:
    from plugconv_mm.models.backbones.hat_net import HATNet as HATNet
    from plugconv_mm.models.backbones.hornet import HorNet as HorNet
    from plugconv_mm.models.backbones.kw_convnext import KWConvNeXt as KWConvNeXt
    from plugconv_mm.models.backbones.kw_mobilenetv2 import KWMobileNetV2 as KWMobileNetV2
    from plugconv_mm.models.backbones.kw_resnet import KWResNet as KWResNet
    from plugconv_mm.models.backbones.parc_convnext import ParCConvNeXt as ParCConvNeXt
    from plugconv_mm.models.backbones.parc_mobilenetv2 import ParCMobileNetV2 as ParCMobileNetV2
    from plugconv_mm.models.backbones.parc_resnet import ParCResNet as ParCResNet
    from plugconv_mm.models.backbones.parcnet import ParCNet as ParCNet
    from plugconv_mm.models.backbones.slak import SLaK as SLaK
    from plugconv_mm.models.backbones.transcnn import TransCNN as TransCNN

__getattr__, __dir__, __all__ = plug_ins(
    __name__,
    hat_net=['HATNet'],
    hornet=['HorNet'],
    kw_convnext=['KWConvNeXt'],
    kw_mobilenetv2=['KWMobileNetV2'],
    kw_resnet=['KWResNet'],
    parc_convnext=['ParCConvNeXt'],
    parc_mobilenetv2=['ParCMobileNetV2'],
    parc_resnet=['ParCResNet'],
    parcnet=['ParCNet'],
    slak=['SLaK'],
    transcnn=['TransCNN'])
