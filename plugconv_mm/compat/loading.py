"""Lets mmengine read and write local checkpoints through :mod:`plugconv_mm.checkpoint`.

mmengine's own loader answers a file that ``weights_only=True`` refuses by running what is in it, and its own writing
leaves half a checkpoint where it is interrupted. Nothing is imported before mmengine's runner is.
"""
import os

from plugconv_mm.compat.imports import after_import


def _register(module) -> None:
    from mmengine.fileio import LocalBackend, register_backend

    from plugconv_mm.checkpoint import load_from_local, replacing

    class AtomicLocalBackend(LocalBackend):
        """Files that are either the old or the whole new one."""

        def put(self, obj, filepath):
            os.makedirs(os.path.dirname(os.path.abspath(filepath)), exist_ok=True)
            with replacing(filepath) as file:
                file.write(obj)

        def put_text(self, obj, filepath, encoding='utf-8'):
            self.put(obj.encode(encoding), filepath)

    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    module.CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)


def install() -> None:
    """Replace mmengine's loader and writer of local files, now or as soon as its runner is imported.

    Calling it again changes nothing.
    """
    after_import('mmengine.runner.checkpoint', _register)
