"""Bases of configs in the continuation of mmsegmentation: mmengine looks for ``mmseg::…`` under the original's name."""
import importlib.util
from types import ModuleType

from plugconv_mm.compat.imports import after_import
from plugconv_mm.compat.packages import installed_versions


def _find_mmseg(module: ModuleType) -> None:
    if 'mmsegmentation' not in installed_versions('mmseg') and importlib.util.find_spec('mmseg'):
        module.MODULE2PACKAGE['mmseg'] = 'mmseg'  # without a distribution of this name mmengine asks for the module


def install() -> None:
    """Name the module in mmengine's table, now or as soon as that is imported."""
    after_import('mmengine.config.utils', _find_mmseg)
