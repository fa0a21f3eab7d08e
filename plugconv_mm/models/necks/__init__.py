"""Necks."""
from plugconv_mm.models.necks.hor_fpn import HorFPN

__all__ = ['HorFPN']
