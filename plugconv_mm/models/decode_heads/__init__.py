"""Heads of segmentors."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins

if TYPE_CHECKING:
    from plugconv_mm.models.decode_heads.hor_uper_head import HorUPerHead as HorUPerHead
    from plugconv_mm.models.decode_heads.pointwise_aspp_head import PointwiseASPPHead as PointwiseASPPHead

__getattr__, __dir__, __all__ = plug_ins(
    __name__,
    hor_uper_head=['HorUPerHead'],
    pointwise_aspp_head=['PointwiseASPPHead'])
