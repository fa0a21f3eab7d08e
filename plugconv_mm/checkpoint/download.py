"""Checkpoints by address, kept in the cache of torch.hub."""
import http.client
import os
import re
import sys
import tempfile
import urllib.error
from typing import Any
from urllib.parse import urlparse

import torch

from plugconv_mm.checkpoint.reading import read_file
from plugconv_mm.errors import CheckpointError, CheckpointNotFoundError, OutputError

# The end of a name such as resnet50-0676ba61.pth; a date in its place is none.
_HASH = re.compile(r'-(?!20\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.[^.]+$')


def read_download(address: str, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint from an address, as :func:`~plugconv_mm.checkpoint.read_checkpoint` reads a file.

    The file is kept, under its name, in ``checkpoints`` below :func:`torch.hub.get_dir`, where mmengine and torch.hub
    look, too; it is not fetched again as long as it is there. It is kept only if it can be read, and if its hash
    (SHA-256) begins with the eight or more hexadecimal digits behind the last hyphen of its name, where it has any.

    Args:
        address: Where it is, http:// or https://.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        CheckpointNotFoundError: If the server has no such file.
        CheckpointError: If it cannot be fetched, is not the file that its name promises, or cannot be read.
        OutputError: If the cache cannot be written.
    """
    name = os.path.basename(urlparse(address).path)
    if name in ('', '.', '..'):
        raise CheckpointError(f'{address} names no file: give the whole address of a checkpoint')
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
            _fetch(address, part)
            checkpoint = read_file(part, address, map_location)
            os.replace(part, cached)
    except (CheckpointError, OutputError):
        raise
    except OSError as error:
        raise OutputError(error.errno, f'{error.strerror}; {address} cannot be kept there', folder) from error
    return checkpoint


def _fetch(address: str, path: str) -> None:
    in_name = _HASH.search(os.path.basename(path))
    try:
        torch.hub.download_url_to_file(
            address, path, hash_prefix=in_name.group(1) if in_name else None, progress=sys.stderr.isatty())
    except urllib.error.HTTPError as error:
        kind = CheckpointNotFoundError if error.code in (404, 410) else CheckpointError
        raise kind(f'{address} cannot be fetched: HTTP {error.code} {error.reason}') from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, 'reason', None) or str(error) or type(error).__name__
        raise CheckpointError(f'{address} cannot be fetched: {reason}. Where there is no network, fetch it elsewhere '
                              'and name the file') from error
    except RuntimeError as error:
        if in_name is None:
            raise
        raise CheckpointError(
            f'{address} is not the file that its name promises, whose SHA-256 begins with {in_name.group(1)}: it was '
            'replaced, or the download went wrong. It is not kept; if you trust it, fetch it by hand and name the '
            'file') from error
