"""Lets mmengine read and write local checkpoints through :mod:`plugconv_mm.checkpoint`.

mmengine's own loader answers a file that ``weights_only=True`` refuses by running what is in it, and its own writing
leaves half a checkpoint where it is interrupted. Nothing is imported before mmengine's runner is.
"""
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

_NAME = 'mmengine.runner.checkpoint'


def _register(module) -> None:
    from mmengine.fileio import LocalBackend, register_backend

    from plugconv_mm.atomic_write import atomic_write
    from plugconv_mm.checkpoint import load_from_local

    class AtomicLocalBackend(LocalBackend):
        """Files that are either the old or the whole new one."""

        def put(self, obj, filepath):
            os.makedirs(os.path.dirname(os.path.abspath(filepath)), exist_ok=True)
            with atomic_write(filepath) as file:
                file.write(obj)

        def put_text(self, obj, filepath, encoding='utf-8'):
            self.put(obj.encode(encoding), filepath)

    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
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
    """Replace mmengine's loader and writer of local files, now or as soon as its runner is imported.

    Calling it again changes nothing.
    """
    if _NAME in sys.modules:
        _register(sys.modules[_NAME])
    elif not any(isinstance(finder, _CheckpointFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CheckpointFinder())
