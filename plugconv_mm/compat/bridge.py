"""Stands in for ``mmcv._ext`` where mmcv was installed without its compiled operators, or they do not load.

:func:`install` puts a finder in front of Python's own that answers for the one name ``mmcv._ext``. Nothing is
imported, and nothing is decided, before mmcv asks for its operators for the first time.
"""
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import sys
from importlib.abc import Loader, MetaPathFinder

from plugconv_mm.compat.packages import install_help, mmcv_build_help

ENVIRONMENT_VARIABLE = 'PLUGCONV_MMCV_OPS'
CHOICES = ('auto', 'torchvision', 'mmcv')
_NAME = 'mmcv._ext'


def choice() -> str:
    """Read ``PLUGCONV_MMCV_OPS``: ``'auto'`` (default), ``'torchvision'`` or ``'mmcv'``.

    Raises:
        ValueError: For any other value.
    """
    value = os.environ.get(ENVIRONMENT_VARIABLE) or 'auto'
    if value not in CHOICES:
        raise ValueError(f'{ENVIRONMENT_VARIABLE} must be one of {", ".join(CHOICES)}, got {value!r}. Leave it unset '
                         f"for auto: mmcv's compiled operators where they load, torchvision's elsewhere.")
    return value


def in_use() -> str | None:
    """``'mmcv'`` or ``'torchvision'``, or None as long as nothing has asked for mmcv's operators."""
    module = sys.modules.get(_NAME)
    return module and ('torchvision' if module.__name__.startswith(__package__) else 'mmcv')


class _OperatorsLoader(Loader):

    def __init__(self, compiled: importlib.machinery.ModuleSpec | None):
        self.compiled = compiled

    def create_module(self, spec):
        asked, reason = choice(), 'mmcv was installed without them'
        if self.compiled is not None and asked != 'torchvision':
            try:
                module = importlib.util.module_from_spec(self.compiled)
                self.compiled.loader.exec_module(module)
            except (ImportError, OSError) as error:
                # Typically "undefined symbol": built against another torch than the one installed.
                reason = f'they are there but do not load: {error}'
            else:
                _log("mmcv operators: mmcv's compiled ones.")
                return module
        if asked == 'mmcv':
            raise RuntimeError(f"{ENVIRONMENT_VARIABLE}=mmcv asks for mmcv's compiled operators, but {reason}. "
                               f'{mmcv_build_help()} Or unset {ENVIRONMENT_VARIABLE} for torchvision to stand in.')
        try:
            from plugconv_mm.compat import mmcv_ops
        except Exception as error:
            raise ImportError(f"mmcv's compiled operators cannot be used ({reason}), and torchvision, which would "
                              f'stand in for them, does not import: {error}. Install the torchvision that belongs to '
                              f'your torch, see https://pytorch.org/get-started/locally.') from error
        if asked == 'torchvision':
            reason = f'{ENVIRONMENT_VARIABLE}=torchvision'
        _log(f"mmcv operators: torchvision's, for those that detection needs ({reason}).",
             logging.WARNING if 'do not load' in reason else logging.INFO)
        return mmcv_ops

    def exec_module(self, module):
        """Done in :meth:`create_module`, which has to know whether it works."""


class _OperatorsFinder(MetaPathFinder):

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _NAME:
            return None
        compiled = importlib.machinery.PathFinder.find_spec(fullname, path)
        return importlib.machinery.ModuleSpec(fullname, _OperatorsLoader(compiled), origin=__name__)


def _log(message: str, level: int = logging.INFO) -> None:
    from mmengine.logging import print_log
    print_log(message, logger='current', level=level)


def install() -> None:
    """Make ``mmcv.ops`` importable with or without mmcv's compiled operators. Calling it again changes nothing.

    Compiled operators that some earlier import has loaded stay in use.

    Raises:
        ValueError: If ``PLUGCONV_MMCV_OPS`` is none of auto, torchvision and mmcv.
        RuntimeError: If it forces what cannot be had.
    """
    asked = choice()
    if not any(isinstance(finder, _OperatorsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OperatorsFinder())
    if asked == 'torchvision' and in_use() == 'mmcv':
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}=torchvision, but mmcv's compiled operators are loaded already: "
                           f'import plugconv_mm before mmcv.ops, mmdet or mmseg.')
    if asked == 'mmcv':
        if importlib.util.find_spec('mmcv') is None:
            raise RuntimeError(f'{ENVIRONMENT_VARIABLE}=mmcv, but mmcv is not installed. {install_help("mmcv")}')
        importlib.import_module(_NAME)
