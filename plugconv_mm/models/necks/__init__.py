"""Necks, the part between the backbone and the heads."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins

if TYPE_CHECKING:
    from plugconv_mm.models.necks.expanded_pooling import ExpandedPooling as ExpandedPooling
    from plugconv_mm.models.necks.hor_fpn import HorFPN as HorFPN

__getattr__, __dir__, __all__ = plug_ins(
    __name__,
    expanded_pooling=['ExpandedPooling'],
    hor_fpn=['HorFPN'])
