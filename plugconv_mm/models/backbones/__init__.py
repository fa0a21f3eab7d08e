"""Backbones."""
from plugconv_mm.models.backbones.parc_resnet import ParCResNet

__all__ = ['ParCResNet']
