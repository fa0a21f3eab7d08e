"""Costs of models, and the regions of images that they use."""
from plugconv_mm.compat.packages import plug_ins

__getattr__, __all__ = plug_ins(
    __name__,
    flops=['ModelCost', 'build_model', 'measure', 'padded_shape'],
    operators=['OperatorCounter'],
)
