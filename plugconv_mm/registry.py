"""Registries of PlugConv-MM: children of mmengine's root registries under the scope ``plugconv_mm``.

A config of mmdet, mmseg or mmpretrain reaches what is registered here as ``type='plugconv_mm.<Name>'`` after
``custom_imports = dict(imports=['plugconv_mm'])``.
"""
import copy
import sys
from typing import Any

from plugconv_mm.compat.packages import install_help
from plugconv_mm.errors import MissingPackageError

try:
    from mmengine import registry as root
except ModuleNotFoundError as error:
    if (error.name or '').partition('.')[0] != 'mmengine':
        raise
    raise MissingPackageError(f'plugconv_mm.registry needs mmengine, which is not installed. '
                              f'{install_help("mmengine")} Without it, plugconv_mm.ops is there to use.',
                              name='mmengine') from error


class PlugInRegistry(root.Registry):
    """A registry that imports the file of a plug-in when the plug-in is first asked for.

    Its ``locations`` are packages that declare their classes with :func:`plugconv_mm.compat.packages.plug_ins`. A
    plug-in whose package is missing raises :class:`~plugconv_mm.errors.MissingPackageError`.
    """

    def get(self, key: str) -> type | None:
        self.import_from_location()
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope):
            for location in self._locations:
                getattr(sys.modules[location], name, None)
        return super().get(key)

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """Build from a config; a plug-in that is named without a scope is ours, whatever the default scope is."""
        kind = cfg.get('type') if isinstance(cfg, dict) else None
        if isinstance(kind, str) and kind in self.declared():
            cfg = copy.copy(cfg)
            cfg['type'] = f'{self.scope}.{kind}'
        return super().build(cfg, *args, **kwargs)

    def declared(self) -> list[str]:
        """List the names of the plug-ins, with those that were never asked for."""
        self.import_from_location()
        return [name for location in self._locations for name in sys.modules[location].__all__]


MODELS = PlugInRegistry('model', parent=root.MODELS, scope='plugconv_mm', locations=['plugconv_mm.models'])
HOOKS = PlugInRegistry('hook', parent=root.HOOKS, scope='plugconv_mm', locations=['plugconv_mm.engine.hooks'])
OPTIM_WRAPPER_CONSTRUCTORS = PlugInRegistry('optim_wrapper_constructor', parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
                                            scope='plugconv_mm', locations=['plugconv_mm.engine.optimizers'])
METRICS = PlugInRegistry('metric', parent=root.METRICS, scope='plugconv_mm', locations=['plugconv_mm.engine.metrics'])
STRATEGIES = PlugInRegistry('strategy', parent=root.STRATEGIES, scope='plugconv_mm',
                            locations=['plugconv_mm.engine.strategies'])
