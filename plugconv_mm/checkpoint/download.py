"""Checkpoints by address, kept in the cache of torch.hub or of the Hugging Face Hub."""
import hashlib
import http.client
import os
import re
import sys
import tempfile
import urllib.error
from typing import Any
from urllib.parse import urlparse

import torch

from plugconv_mm.checkpoint.reading import read_checkpoint, read_file
from plugconv_mm.errors import CheckpointError, CheckpointNotFoundError, MissingPackageError, OutputError

# The end of a name such as resnet50-0676ba61.pth; a date in its place is none.
_HASH = re.compile(r'-(?!20\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.[^.]+$')


# hf://OWNER/NAME@REVISION/FILE, of which the revision may be left out.
_HUB = re.compile(r'hf://(?P<repo_id>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<filename>[^?]+)')
_ELSEWHERE = 'Where there is no network, fetch it elsewhere and name the file'


def read_address(address: str, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint from a local file or from an address: http://, https:// or hf://.

    Args:
        address: The file, the address, or ``hf://OWNER/NAME/FILE`` for a file of the Hugging Face Hub.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        CheckpointNotFoundError: If there is no such file.
        CheckpointError: If it cannot be fetched or read.
        MissingPackageError: If a package that is needed for it is not installed.
        OutputError: If the cache cannot be written.
    """
    if address.startswith(('http://', 'https://')):
        return read_download(address, map_location)
    if address.startswith('hf://'):
        return read_from_hub(address, map_location)
    return read_checkpoint(address, map_location)


def read_download(address: str, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint from an address, as :func:`~plugconv_mm.checkpoint.read_checkpoint` reads a file.

    The file is kept in ``checkpoints`` below :func:`torch.hub.get_dir`, where mmengine and torch.hub keep theirs, and
    is not fetched again as long as it is there. Where its name ends in a hyphen and eight or more hexadecimal digits,
    it is kept under this name, if its hash (SHA-256) begins with them. Any other name may stand for several files, such
    as the ``download`` of many servers: digits made from the whole address are put behind it. A file that cannot be
    read is not kept.

    Args:
        address: Where it is, http:// or https://.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        CheckpointNotFoundError: If the server has no such file.
        CheckpointError: If it cannot be fetched, is not the file that its name promises, or cannot be read.
        OutputError: If the cache cannot be written.
    """
    parts = urlparse(address)
    if not parts.path.strip('/') and not parts.query:
        raise CheckpointError(f'{address} names no file: give the whole address of a checkpoint')
    name = os.path.basename(parts.path)
    in_name = _HASH.search(name)
    if not in_name:
        stem, extension = os.path.splitext(name)
        name = f'{stem or "checkpoint"}_{hashlib.sha256(address.encode()).hexdigest()[:8]}{extension}'
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    cached = os.path.join(folder, name)
    if os.path.isfile(cached):
        try:
            return read_file(cached, cached, map_location)
        except CheckpointError as error:
            raise CheckpointError(f'{error}. It is a copy of {address}: remove it to fetch that again') from error
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.download-', dir=folder) as temporary:
            part = os.path.join(temporary, name)
            sys.stderr.write(f'Downloading {address} to {cached}\n')
            _fetch(address, part, in_name.group(1) if in_name else None)
            checkpoint = read_file(part, address, map_location)
            os.replace(part, cached)
    except (CheckpointError, OutputError):
        raise
    except OSError as error:
        raise OutputError(error.errno, f'{error.strerror}; {address} cannot be kept there', folder) from error
    return checkpoint


def _fetch(address: str, path: str, digits: str | None) -> None:
    try:
        torch.hub.download_url_to_file(address, path, hash_prefix=digits, progress=sys.stderr.isatty())
    except urllib.error.HTTPError as error:
        kind = CheckpointNotFoundError if error.code in (404, 410) else CheckpointError
        raise kind(f'{address} cannot be fetched: HTTP {error.code} {error.reason}') from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, 'reason', None) or str(error) or type(error).__name__
        raise CheckpointError(f'{address} cannot be fetched: {reason}. {_ELSEWHERE}') from error
    except RuntimeError as error:
        if digits is None:
            raise
        raise CheckpointError(
            f'{address} is not the file that its name promises, whose SHA-256 begins with {digits}: it was replaced, '
            'or the download went wrong. It is not kept; if you trust it, fetch it by hand and name the file'
        ) from error


def read_from_hub(address: str, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint from the Hugging Face Hub, which is kept in the cache of its package.

    Args:
        address: ``hf://OWNER/NAME/FILE``, or ``hf://OWNER/NAME@REVISION/FILE`` for a branch, tag or commit.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        CheckpointNotFoundError: If there is no such repository, revision or file.
        CheckpointError: If the address is none, the file cannot be fetched, or it cannot be read.
        MissingPackageError: If huggingface_hub is not installed.
    """
    place = _HUB.fullmatch(address)
    if not place:
        raise CheckpointError(f'{address} names no file of the Hugging Face Hub: give hf://OWNER/NAME/FILE, or '
                              'hf://OWNER/NAME@REVISION/FILE')
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise MissingPackageError(f'{address} needs the package huggingface_hub: pip install huggingface_hub'
                                  ) from error
    try:
        path = hf_hub_download(place['repo_id'], place['filename'], revision=place['revision'])
    except Exception as error:  # of the package, of its HTTP client, and of the network
        missing = isinstance(error, (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError))
        kind = CheckpointNotFoundError if missing and not isinstance(error, LocalEntryNotFoundError) else (
            CheckpointError)
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise kind(f'{address} cannot be fetched: {reason} {_ELSEWHERE}') from error
    return read_file(path, address, map_location)
