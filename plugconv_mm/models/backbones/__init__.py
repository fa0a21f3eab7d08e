"""Backbones."""
from plugconv_mm.models.backbones.hornet import HorNet
from plugconv_mm.models.backbones.parc_convnext import ParCConvNeXt
from plugconv_mm.models.backbones.parc_mobilenetv2 import ParCMobileNetV2
from plugconv_mm.models.backbones.parc_resnet import ParCResNet
from plugconv_mm.models.backbones.parcnet import ParCNet
from plugconv_mm.models.backbones.transcnn import TransCNN

__all__ = ['HorNet', 'ParCConvNeXt', 'ParCMobileNetV2', 'ParCNet', 'ParCResNet', 'TransCNN']
