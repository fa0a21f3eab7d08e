"""Heads of classifiers."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins

if TYPE_CHECKING:
    from plugconv_mm.models.cls_heads.dropout_linear import DropoutLinearClsHead as DropoutLinearClsHead
    from plugconv_mm.models.cls_heads.kw_linear import KWLinearClsHead as KWLinearClsHead

__getattr__, __dir__, __all__ = plug_ins(
    __name__,
    dropout_linear=['DropoutLinearClsHead'],
    kw_linear=['KWLinearClsHead'])
