"""Backbones."""
from plugconv_mm.models.backbones.hornet import HorNet
from plugconv_mm.models.backbones.parc_resnet import ParCResNet
from plugconv_mm.models.backbones.transcnn import TransCNN

__all__ = ['HorNet', 'ParCResNet', 'TransCNN']
