"""PlugConv-MM: convolutions with a global view, as plug-ins for OpenMMLab.

``import plugconv_mm`` is cheap and works with torch alone, which is all that ``plugconv_mm.ops`` needs. It makes
``mmcv.ops`` work without mmcv's compiled operators (:mod:`plugconv_mm.compat`), and the plug-ins reachable from
configs as ``type='plugconv_mm.<Name>'``. Configs are found by name in the inferencers of OpenMMLab.
"""
import importlib
from typing import TYPE_CHECKING, Any

from plugconv_mm.compat import bridge, class_weights, config_bases, inferencers, loading, panoptic, ssd_head
from plugconv_mm.compat.packages import check_versions
from plugconv_mm.version import __version__

if TYPE_CHECKING:
    from plugconv_mm import checkpoint as checkpoint
    from plugconv_mm import models as models
    from plugconv_mm import ops as ops
    from plugconv_mm import plugging as plugging
    from plugconv_mm import registry as registry
    from plugconv_mm.plugging import PlugReport as PlugReport
    from plugconv_mm.plugging import plug as plug
    from plugconv_mm.plugging import unplug as unplug

__all__ = ['PlugReport', '__version__', 'plug', 'unplug']

_LAZY = ('checkpoint', 'models', 'ops', 'plugging', 'registry')
_PLUGGING = ('PlugReport', 'plug', 'unplug')

check_versions()
bridge.install()
loading.install()
class_weights.install()
panoptic.install()
ssd_head.install()
config_bases.install()
inferencers.install()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f'{__name__}.{name}')
    if name in _PLUGGING:
        return getattr(importlib.import_module(f'{__name__}.plugging'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PLUGGING})
