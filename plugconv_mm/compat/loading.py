"""Lets mmengine read local checkpoints through :func:`plugconv_mm.checkpoint.load_from_local`.

mmengine's own loader answers a file that ``weights_only=True`` refuses by running what is in it. Nothing is imported
before mmengine's runner is.
"""
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

_NAME = 'mmengine.runner.checkpoint'


def _register(module) -> None:
    from plugconv_mm.checkpoint import load_from_local
    module.CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)


class _CheckpointFinder(MetaPathFinder):

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _NAME:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                _register(module)

            spec.loader.exec_module = execute_and_register
        return spec


def install() -> None:
    """Replace mmengine's loader of local files, now or as soon as it is imported. Calling it again changes nothing."""
    if _NAME in sys.modules:
        _register(sys.modules[_NAME])
    elif not any(isinstance(finder, _CheckpointFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CheckpointFinder())
