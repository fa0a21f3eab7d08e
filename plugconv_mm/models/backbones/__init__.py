"""Backbones."""
from plugconv_mm.models.backbones.hornet import HorNet
from plugconv_mm.models.backbones.transcnn import TransCNN

__all__ = ['HorNet', 'TransCNN']
