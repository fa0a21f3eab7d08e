"""Loaders for mmengine: one for each kind of address that it knows, all of which read without running code.

Each takes ``ADDRESS#ENTRY``, too, for the weights under that entry of the checkpoint.
"""
import contextlib
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from plugconv_mm.checkpoint.conversion import convert_parts, has_classifier, split_parts, with_classifier
from plugconv_mm.checkpoint.download import read_address
from plugconv_mm.checkpoint.families import recognise
from plugconv_mm.checkpoint.fitting import attach_classifier
from plugconv_mm.checkpoint.reading import read_checkpoint, read_file
from plugconv_mm.checkpoint.state_dict import find_weights, normalised, split_entry
from plugconv_mm.errors import CheckpointError, CheckpointNotFoundError, MissingPackageError


def _prepared(checkpoint: dict, address: str, entry: str) -> dict:
    """A checkpoint whose weights mmengine finds, under names of ours.

    It finds them bare or under ``state_dict``. A checkpoint that is so already passes unchanged, with all that resuming
    needs; names that a run of mmengine wrote beside its ``meta`` are the model's own, whatever they begin with.
    """
    try:
        weights = find_weights(checkpoint, entry)
        meta = checkpoint.get('meta')
        is_run = weights.place == ('state_dict', ) and isinstance(meta, Mapping)
        state = normalised(weights.state, ('module.', ) if is_run else ('module.', 'model.'))
    except CheckpointError as error:
        if entry:
            raise CheckpointError(f'{address}: {error}') from error
        return checkpoint  # not weights alone
    if weights.choice:
        from mmengine.logging import print_log
        print_log(f'{address} holds several sets of weights: {weights.choice}', logger='current')
    is_found = weights.place in ((), ('state_dict', )) and weights.state.keys() == state.keys()
    parts = [(family, part) for part in split_parts(state).values()
             if (family := recognise(part)) and not family.is_shared]
    is_published = any(family.rename(key) != key for family, part in parts for key in part)
    if not is_run:
        is_published |= bool(parts) and not is_found or any(family.variant_of(part) for family, part in parts)
    converted = None
    if is_published:
        converted = convert_parts(state)[0]
    elif not is_run and has_classifier(state):
        with contextlib.suppress(CheckpointError):  # a network that is built upon one of ours has names of its own
            converted = convert_parts(state)[0]
    if converted is not None:
        state = attach_classifier(converted, with_classifier(state, converted))
    elif is_found:
        return checkpoint
    elif is_run:
        return {**checkpoint, 'state_dict': state}
    beside = meta if isinstance(meta, Mapping) else {}
    return {'state_dict': state,
            'meta': {key: beside[key] for key in ('CLASSES', 'PALETTE', 'dataset_meta') if key in beside}}


def load_from_local(filename: str, map_location: Any = 'cpu') -> dict:
    """Load a local file for mmengine: :func:`read_checkpoint`, with published checkpoints turned into ours.

    A published backbone or detector can therefore stand in ``init_cfg=dict(type='Pretrained', checkpoint=...)`` or
    ``load_from`` as it is. The weights of any network are found bare or under ``model`` and the like, where mmengine
    would find none, and prefixes of wrappers are taken off. Of what lies beside such weights, only the classes are
    kept. Checkpoints of mmengine's runners pass unchanged.

    Args:
        filename: The file, or ``FILE#ENTRY`` for the weights under this entry of it, such as ``model_ema``.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        CheckpointNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read, or is a published one that cannot be converted.
    """
    path, entry = split_entry(filename)
    if '://' in path and not os.path.exists(path):
        raise CheckpointError(f'{path} is no address that mmengine knows: name a file, or an address with http://, '
                              'https://, hf://, torchvision://, openmmlab://, mmcls://, s3://, petrel:// or pavi://')
    return _prepared(read_checkpoint(path, map_location), filename, entry)


def load_from_web(filename: str, map_location: Any = 'cpu') -> dict:
    """Load an address for mmengine, as :func:`load_from_local` loads a file.

    The first process fetches the file into the cache, and the others read it there; where they have another cache,
    each fetches its own.

    Args:
        filename: The address, http://, https:// or hf://.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        CheckpointError: As of :func:`load_from_local`, or if the file cannot be fetched.
    """
    from mmengine.dist import barrier, get_rank
    address, entry = split_entry(filename)
    if get_rank():
        barrier()
        checkpoint = read_address(address, map_location)
    else:
        try:
            checkpoint = read_address(address, map_location)
        finally:
            barrier()
    return _prepared(checkpoint, filename, entry)


def _look_up(filename: str, urls: Mapping[str, str]) -> str:
    """The address that a model zoo has for ``ZOO://MODEL#ENTRY``, with the entry."""
    address, entry = split_entry(filename)
    zoo, _, model = address.partition('://')
    if model not in urls:
        from difflib import get_close_matches
        near = get_close_matches(model, urls, n=3)
        raise CheckpointNotFoundError(f'{zoo}:// has no model {model}' + (
            f': did you mean {" or ".join(near)}?' if near else f', but for example {", ".join(sorted(urls)[:3])}'))
    return f'{urls[model]}#{entry}' if entry else urls[model]


def load_from_torchvision(filename: str, map_location: Any = 'cpu') -> dict:
    """Load ``torchvision://MODEL`` (``modelzoo://``, too) for mmengine, as :func:`load_from_web` does."""
    from mmengine.runner.checkpoint import get_torchvision_models
    return load_from_web(_look_up(filename, get_torchvision_models()), map_location)


def load_from_openmmlab(filename: str, map_location: Any = 'cpu') -> dict:
    """Load ``openmmlab://MODEL`` (``open-mmlab://``, too) for mmengine, as :func:`load_from_web` does.

    ``open_mmlab.json`` in mmengine's home folder may name further models, by address or as files in that folder.
    """
    from mmengine.runner.checkpoint import _get_mmengine_home, get_deprecated_model_names, get_external_models
    urls = get_external_models()
    urls.update({old: urls[new] for old, new in get_deprecated_model_names().items() if new in urls})
    address = _look_up(filename, urls)
    if address.startswith(('http://', 'https://')):
        return load_from_web(address, map_location)
    return load_from_local(os.path.join(_get_mmengine_home(), address), map_location)


def load_from_mmcls(filename: str, map_location: Any = 'cpu') -> dict:
    """Load the backbone of ``mmcls://MODEL`` for mmengine, as :func:`load_from_web` does."""
    from mmengine.runner.checkpoint import _process_mmcls_checkpoint, get_mmcls_models
    return _process_mmcls_checkpoint(load_from_web(_look_up(filename, get_mmcls_models()), map_location))


def load_from_ceph(filename: str, map_location: Any = 'cpu', backend: str = 'petrel') -> dict:
    """Load from Ceph (``s3://``, ``petrel://``) for mmengine, as :func:`load_from_local` loads a file."""
    from mmengine.fileio import get_file_backend
    address, entry = split_entry(filename)
    try:
        content = get_file_backend(address, backend_args={'backend': backend}).get(address)
    except ImportError as error:
        raise MissingPackageError(f'{address} cannot be fetched: {error}') from error
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(address))
        with open(path, 'wb') as file:
            file.write(content)
        return _prepared(read_file(path, address, map_location), filename, entry)


def load_from_pavi(filename: str, map_location: Any = 'cpu') -> dict:
    """Load ``pavi://MODEL`` for mmengine, as :func:`load_from_local` loads a file."""
    try:
        from pavi import modelcloud  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingPackageError(f'{filename} needs the package pavi') from error
    address, entry = split_entry(filename)
    model = modelcloud.get(address.removeprefix('pavi://'))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(model.name))
        model.download(path)
        return _prepared(read_file(path, address, map_location), filename, entry)


# mmengine's own prefixes, regular expressions.
SCHEMES = {
    ('', ): load_from_local,
    ('http://', 'https://', 'hf://'): load_from_web,
    ('modelzoo://', 'torchvision://'): load_from_torchvision,
    ('open-mmlab://', 'openmmlab://'): load_from_openmmlab,
    ('mmcls://', ): load_from_mmcls,
    (r'(\S+\:)?s3://', r'(\S+\:)?petrel://'): load_from_ceph,
    ('pavi://', ): load_from_pavi,
}
