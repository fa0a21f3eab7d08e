"""Networks of four stages for detectors, segmentors and classifiers."""
from plugconv_mm.compat.packages import plug_ins

__getattr__, __all__ = plug_ins(
    __name__,
    hornet=['HorNet'],
    kw_convnext=['KWConvNeXt'],
    kw_mobilenetv2=['KWMobileNetV2'],
    kw_resnet=['KWResNet'],
    parc_convnext=['ParCConvNeXt'],
    parc_mobilenetv2=['ParCMobileNetV2'],
    parc_resnet=['ParCResNet'],
    parcnet=['ParCNet'],
    slak=['SLaK'],
    transcnn=['TransCNN'],
    hat_net=['HATNet'])
