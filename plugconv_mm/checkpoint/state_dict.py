"""The state dict inside a checkpoint, and its names without what wrappers put in front of them."""
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from plugconv_mm.errors import CheckpointError

# Names under which code bases keep the weights; of several that are there, the first.
_WRAPPERS = ('state_dict', 'model', 'module', 'model_state_dict', 'model_state', 'net', 'params')
_AVERAGED = ('state_dict_ema', 'model_ema', 'model_ema_state_dict', 'ema', 'params_ema')
# What torch.compile puts into the name of a module wherever it is, and other wrappers in front of all names.
_COMPILED = re.compile(r'(^|(?<=\.))_orig_mod\.')
_PREFIXES = ('module.', 'model.')
# Counters beside the weights: of averaged models, under 'module.', and those that profilers leave in every module.
_COUNTERS = ('n_averaged', 'steps')
_PROFILED = re.compile(r'(.*\.)?total_(ops|params)')


class Weights(NamedTuple):
    """Weights found in a checkpoint.

    Attributes:
        state: Names and tensors, as the checkpoint has them.
        place: The entries under which they lie, from the outermost.
        averaged: Entries beside them that hold averaged weights.
    """
    state: Mapping
    place: tuple[str, ...]
    averaged: tuple[str, ...]

    @property
    def choice(self) -> str:
        """Which weights were taken, where there are averaged ones beside them; else empty."""
        if not self.averaged:
            return ''
        others = ' or '.join(f'#{name}' for name in self.averaged)
        return f"those under {'.'.join(self.place)!r} are used; {others} behind the file's name uses averaged ones"


def split_entry(address: str | os.PathLike) -> tuple[str, str]:
    """Split ``FILE#ENTRY``, which asks for the weights under this entry of a checkpoint.

    Returns:
        The file or address, and the entry; the latter is empty where none is named, as in the name of a file that is
        there.
    """
    address = os.fspath(address)
    file, sign, entry = address.rpartition('#')
    if not sign or '/' in entry or os.path.exists(os.path.expanduser(address)):
        return address, ''
    return file, entry


def find_weights(checkpoint: Mapping, entry: str = '') -> Weights:
    """Look for the state dict in a checkpoint: the checkpoint itself, or below ``state_dict``, ``model`` and the like.

    Args:
        checkpoint: The checkpoint.
        entry: The entry to take, such as ``'model_ema'``; by default averaged weights are taken where there are no
            others.

    Raises:
        CheckpointError: If the checkpoint is no mapping, or has no such entry.
    """
    state, place, averaged, wanted = checkpoint, [], [], entry
    while True:
        if not isinstance(state, Mapping):
            raise CheckpointError(f'a checkpoint is a mapping from names to tensors, got {type(state).__name__}')
        inner = [name for name in (*_WRAPPERS, *_AVERAGED) if isinstance(state.get(name), Mapping)]
        if wanted and isinstance(state.get(wanted), Mapping):
            name, wanted = wanted, ''
        elif inner:
            name = next((name for name in inner if state[name]), inner[0])
        else:
            break
        averaged += [other for other in inner if other in _AVERAGED and other != name and state[other]]
        place.append(name)
        state = state[name]
    if wanted:
        entries = ', '.join(repr(name) for name, value in checkpoint.items() if isinstance(value, Mapping))
        raise CheckpointError(f'the checkpoint has no weights under {entry!r}; ' + (
            f'its entries are {entries}' if entries else 'it is a state dict itself'))
    return Weights(state, tuple(place), tuple(averaged))


def bare_names(names: Iterable[str], prefixes: tuple[str, ...] = _PREFIXES) -> dict[str, str]:
    """Names without the prefixes of wrappers.

    Args:
        names: The names of one state dict.
        prefixes: Prefixes to take off, repeatedly, where all names have them.

    Returns:
        The bare names by the given ones; names that would not stay different are left as they are.
    """
    names = list(names)
    bare = [_COMPILED.sub('', name) for name in names]
    while prefix := next((p for p in prefixes if _all_have(p, bare)), ''):
        bare = [name.removeprefix(prefix) for name in bare]
    return dict(zip(names, bare if len(set(bare)) == len(bare) else names, strict=True))


def _all_have(prefix: str, names: list[str]) -> bool:
    weights = [name for name in names if prefix != 'module.' or name not in _COUNTERS]
    return bool(weights) and all(name.startswith(prefix) for name in weights)


def is_profiled(name: str) -> bool:
    """Whether this is a counter that a profiler left in a state dict."""
    return _PROFILED.fullmatch(name) is not None


def normalised(state: Mapping, prefixes: tuple[str, ...] = _PREFIXES) -> dict[str, Tensor]:
    """Names and tensors of a state dict without the prefixes of wrappers and without counters of profilers.

    Args:
        state: The state dict; it is not changed.
        prefixes: As for :func:`bare_names`.

    Raises:
        CheckpointError: If this is no state dict, or an empty one.
    """
    if not state:
        raise CheckpointError('the state dict is empty')
    strange = [key for key, value in state.items() if not isinstance(key, str) or not (
        torch.is_tensor(value) or key.endswith('_extra_state'))]
    if strange:
        raise CheckpointError(
            f'a state dict maps names to tensors, but {len(strange)} of {len(state)} entries do not, e.g. '
            f'{", ".join(repr(key) for key in strange[:4])}; pass the state dict itself, or wrapped under one of '
            f'{", ".join(map(repr, _WRAPPERS + _AVERAGED))}')
    bare = bare_names((key for key in state if not is_profiled(key)), prefixes)
    unwrapped = any(key != name for key, name in bare.items())
    return {name: state[key] for key, name in bare.items() if not (unwrapped and key in _COUNTERS)}


def state_dict_of(checkpoint: Mapping, entry: str = '') -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the prefixes of wrappers and without counters of profilers.

    Args:
        checkpoint: A state dict, or a mapping that holds one under ``state_dict``, ``model`` and the like.
        entry: The entry that holds the weights, where it is to be another one, such as ``'model_ema'``.

    Returns:
        A new dict that shares the tensors.

    Raises:
        CheckpointError: If there is no state dict in it, or an empty one.
    """
    return normalised(find_weights(checkpoint, entry).state)
