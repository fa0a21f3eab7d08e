"""What models cost."""
from plugconv_mm.analysis.flops import ModelCost, build_model, measure, padded_shape
from plugconv_mm.analysis.operators import OperatorCounter

__all__ = ['ModelCost', 'OperatorCounter', 'build_model', 'measure', 'padded_shape']
