"""Backbones."""
from plugconv_mm.models.backbones.transcnn import TransCNN

__all__ = ['TransCNN']
