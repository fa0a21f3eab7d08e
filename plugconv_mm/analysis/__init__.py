"""Costs of models, and the regions of images that they use."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins

if TYPE_CHECKING:
    from plugconv_mm.analysis.flops import ModelCost as ModelCost
    from plugconv_mm.analysis.flops import OperatorCounter as OperatorCounter
    from plugconv_mm.analysis.flops import build_model as build_model
    from plugconv_mm.analysis.flops import measure as measure
    from plugconv_mm.analysis.flops import padded_shape as padded_shape

__getattr__, __dir__, __all__ = plug_ins(
    __name__,
    flops=['ModelCost', 'OperatorCounter', 'build_model', 'measure', 'padded_shape'],
)
