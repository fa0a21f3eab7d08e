"""Lets mmengine read, fit and write checkpoints through :mod:`plugconv_mm.checkpoint`.

mmengine's own loaders answer a file that ``weights_only=True`` refuses by running what is in it, its
``load_state_dict`` goes on where no weight fits the model, and its own writing leaves half a checkpoint where it is
interrupted. Nothing is imported before mmengine's runner is.
"""
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from plugconv_mm.compat.imports import after_import

if TYPE_CHECKING:
    from torch import nn


def _register(module: Any) -> None:
    from mmengine.fileio import LocalBackend, register_backend

    from plugconv_mm.atomic_write import atomic_write
    from plugconv_mm.checkpoint.loaders import SCHEMES

    class AtomicLocalBackend(LocalBackend):
        """Files that are either the old or the whole new one."""

        def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
            os.makedirs(os.path.dirname(os.path.abspath(filepath)), exist_ok=True)
            with atomic_write(filepath) as file:
                file.write(obj)

        def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
            self.put(obj.encode(encoding), filepath)

    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
    for prefixes, loader in SCHEMES.items():
        module.CheckpointLoader.register_scheme(prefixes=prefixes, loader=loader, force=True)
    if not hasattr(module.load_state_dict, '__wrapped__'):
        module.load_state_dict = _fitting(module.load_state_dict)


def _fitting(load_state_dict: Callable) -> Callable:
    """mmengine's ``load_state_dict``, for weights under the names of wrappers or of another package, too.

    It raises a ``CheckpointError`` where the model takes none of them, or they are those of another size of it or of it
    with operators plugged in.
    """

    @functools.wraps(load_state_dict)
    def load(module: Any, state_dict: dict, strict: bool = False, logger: Any = None) -> None:
        from mmengine.model import BaseTTAModel, is_model_wrapper
        from mmengine.runner.checkpoint import get_state_dict

        from plugconv_mm.checkpoint.fitting import check_any_fits, check_plugged, fit_to_model
        from plugconv_mm.checkpoint.sizes import check_size
        model: nn.Module = module.module if is_model_wrapper(module) or isinstance(module, BaseTTAModel) else module
        own = get_state_dict(model)
        state_dict = fit_to_model(state_dict, own)
        check_plugged(state_dict, own, type(model).__name__)
        check_size(state_dict, own, model, f'the checkpoint does not fit {type(model).__name__}.')
        missing = set()
        # Old names become new ones while a module is loaded: what it missed tells what it took.
        hook = model.register_load_state_dict_post_hook(lambda _, keys: missing.update(keys.missing_keys))
        try:
            load_state_dict(module, state_dict, strict, logger)
        finally:
            hook.remove()
        own = {name: value for name, value in own.items() if 'num_batches_tracked' not in name}
        loaded = [name for name in own if name not in missing and (
            name not in state_dict or getattr(state_dict[name], 'shape', None) == getattr(own[name], 'shape', None))]
        check_any_fits(state_dict, len(loaded), own, type(model).__name__)

    return load


def install() -> None:
    """Replace mmengine's loaders of checkpoints and its writer of local files, now or once its runner is imported.

    Calling it again changes nothing.
    """
    after_import('mmengine.runner.checkpoint', _register)
