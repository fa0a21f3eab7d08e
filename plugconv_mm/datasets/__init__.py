"""Data sets that are built without a download, and images in files of the user's own."""
from plugconv_mm.datasets.digits import CLASSES, build_digits, check_digits
from plugconv_mm.datasets.distant_cue import build_distant_cue
from plugconv_mm.datasets.mini import build_mini
from plugconv_mm.errors import DataError

__all__ = ['CLASSES', 'DataError', 'build_digits', 'build_distant_cue', 'build_mini', 'check_digits']
