"""Checkpoint files that are either the old or the whole new one."""
import os
from collections.abc import Mapping

import torch

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.checkpoint.conversion import some_of
from plugconv_mm.errors import CheckpointError


def write_checkpoint(checkpoint: Mapping, path: str | os.PathLike) -> None:
    """Write a checkpoint so that ``path`` holds either the old file or the whole new one.

    See :func:`plugconv_mm.atomic_write.atomic_write`.

    Args:
        checkpoint: A state dict; any mapping that :func:`torch.save` takes, if ``path`` does not end in
            ``.safetensors``.
        path: The file to write; its folder must exist.

    Raises:
        OutputError: If there is no such folder (it is a ``FileNotFoundError`` then), ``path`` is a folder, or writing
            fails.
        CheckpointError: If safetensors is to hold anything else than tensors.
    """
    with atomic_write(path) as file:
        if os.fspath(path).endswith('.safetensors'):
            file.write(_to_safetensors(checkpoint))
        else:
            torch.save(checkpoint, file)


def _to_safetensors(state: Mapping) -> bytes:
    from safetensors.torch import save
    others = [key for key, value in state.items() if not torch.is_tensor(value)]
    if others:
        raise CheckpointError(f'safetensors holds tensors only, and these are none: {some_of(map(str, others))}')
    # Tensors that share memory or are views are written out one by one.
    return save({key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                 for key, value in state.items()})
