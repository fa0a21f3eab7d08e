"""The embedded data sets, and the check of a config's data before a model is built."""
from plugconv_mm.datasets.digits import CLASSES, build_digits, check_digits
from plugconv_mm.datasets.far_cue import build_far_cue
from plugconv_mm.datasets.folders import DataError
from plugconv_mm.datasets.miniature import build_miniature

__all__ = ['CLASSES', 'DataError', 'build_digits', 'build_far_cue', 'build_miniature', 'check_digits']
