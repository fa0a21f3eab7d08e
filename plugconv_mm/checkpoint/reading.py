"""Checkpoint files read without running code from them."""
import argparse
import contextlib
import importlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from plugconv_mm.errors import CheckpointError, CheckpointNotFoundError, MissingPackageError


def _history_statistic(owner: Any, name: str) -> Any:
    """Stand in for the ``getattr`` of mmengine's checkpoints: it gives the statistics of a HistoryBuffer alone."""
    from mmengine.logging import HistoryBuffer
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')
    return getattr(owner, name)


def _harmless_globals() -> list:
    """Types that checkpoints of OpenMMLab and of the published code bases hold beside tensors.

    They hold data only: building one runs no code that the file chooses.
    """
    import numpy as np
    multiarray = importlib.import_module(f'numpy.{"_core" if hasattr(np, "_core") else "core"}.multiarray')
    harmless = [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, slice, np.ndarray, np.dtype]
    harmless += [type(np.dtype(code)) for code in '?bBhHiIlLqQefdFDUS']
    for name in ('_reconstruct', 'scalar'):  # files of NumPy 1 and of NumPy 2
        harmless += [(getattr(multiarray, name), f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')]
    with contextlib.suppress(ImportError):
        from mmengine.logging import HistoryBuffer
        harmless += [HistoryBuffer, (_history_statistic, 'builtins.getattr')]
    return harmless


def _explain_unreadable(path: str, name: str, error: Exception) -> CheckpointError:
    with open(path, 'rb') as file:
        start = file.read(64)
    size = os.path.getsize(path)
    refused = re.search(r'GLOBAL (.+?) was not an allowed|GLOBAL (getattr\(.*\))|unsupported GLOBAL (\S+) whose',
                        str(error))
    if refused:
        wanted = next(filter(None, refused.groups()))
        return CheckpointError(
            f'refused to load {name}: it asks to run {wanted!r}, which is not needed to hold weights, and running what '
            'a file asks for lets it do anything on this machine. If you trust its source, load it once with '
            'torch.load(..., weights_only=False) and save its state dict alone')
    if start.startswith(b'version https://git-lfs'):
        return CheckpointError(f'{name} is a pointer of Git LFS, not the checkpoint itself: fetch it with '
                               '`git lfs pull`')
    if start.lstrip().lower().startswith((b'<!doctype', b'<html')):
        advice = ('download the file that it shows with a browser, and name the file' if '://' in name else
                  'the download went wrong, fetch the file again')
        return CheckpointError(f'{name} is a web page, not a checkpoint: {advice}')
    if 'TorchScript' in str(error):
        return CheckpointError(f'{name} is a TorchScript program, not a checkpoint: take the state dict it was made '
                               'from')
    if (start.startswith((b'PK', b'\x80')) and not zipfile.is_zipfile(path)) or path.endswith('.safetensors'):
        return CheckpointError(
            f'{name} ({size} bytes) is damaged or truncated: fetch or copy it again, or use an earlier checkpoint '
            f'({str(error).splitlines()[0] if str(error) else type(error).__name__})')
    return CheckpointError(f'{name} is not a checkpoint: neither a file of torch.save nor safetensors '
                           f'({size} bytes, starting with {start[:12]!r})')


def read_file(path: str, name: str, map_location: Any = 'cpu') -> dict:
    """Read a file that is there; messages call it by another name, such as the address that it is a copy of."""
    if not os.path.getsize(path):
        raise CheckpointError(f'{name} is empty: fetch or copy it again')
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file
            device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
            return load_file(path, device=str(device))
        with torch.serialization.safe_globals(_harmless_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except ImportError as error:
        raise MissingPackageError(f'{name} needs the safetensors package: pip install safetensors') from error
    except MemoryError:
        raise
    except PermissionError as error:
        raise CheckpointError(f'{name} cannot be read: {error.strerror}') from error
    except Exception as error:  # zip, pickle and safetensors readers raise many types for a bad file
        raise _explain_unreadable(path, name, error) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{name} is not a checkpoint: it holds one {type(checkpoint).__name__}, expected a '
                              'mapping with a state dict')
    return checkpoint  # type: ignore[return-value]


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint (.pth and the like, or .safetensors) without running code from it.

    Besides tensors, a file may hold what mmengine's Runner and the published code bases save: NumPy arrays and
    scalars, histories of the log, and parsed arguments.

    Args:
        path: The file.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Returns:
        The mapping that the file holds: a state dict, or a checkpoint with one inside.

    Raises:
        CheckpointNotFoundError: If there is no such file.
        CheckpointError: If the file is truncated, damaged, wants to run code, or is not a checkpoint. The message says
            which.
        MissingPackageError: If safetensors is not installed, and the file is of this format.
    """
    path = os.path.expanduser(os.fspath(path))
    if os.path.isdir(path):
        raise CheckpointError(f'{path} is a folder: name the checkpoint file in it')
    if not os.path.isfile(path):
        raise CheckpointNotFoundError(
            f'there is no checkpoint {path} (looked in {os.path.dirname(os.path.abspath(path))})')
    return read_file(path, path, map_location)
