"""The embedded data set, and the check of a config's data before a model is built."""
from plugconv_mm.datasets.digits import CLASSES, DataError, build_digits, check_digits

__all__ = ['CLASSES', 'DataError', 'build_digits', 'check_digits']
