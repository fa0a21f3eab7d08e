"""Data folders that are either whole or not there."""
import contextlib
import os
import shutil
from pathlib import Path


class DataError(RuntimeError):
    """A data folder that is missing, half-built or not what the config expects; the message says what to do."""


@contextlib.contextmanager
def written_at_once(out):
    """A new folder beside ``out``, which takes its place when the block ends without an error.

    Nothing is left behind if it does not, nor by an earlier build of ``out`` that was killed.

    Args:
        out (str | Path): The folder to be; what it held before goes.

    Yields:
        Path: The folder to write into.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(out)
    temp = out.parent / f'.{out.name}.building-{os.getpid()}'
    try:
        temp.mkdir()
        yield temp
        if out.exists():
            old = out.parent / f'.{out.name}.old-{os.getpid()}'
            out.rename(old)
            temp.rename(out)
            shutil.rmtree(old)
        else:
            temp.rename(out)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def _remove_leftovers(out):
    for path in out.parent.glob(f'.{out.name}.*-*'):
        pid = path.name.rpartition('-')[2]
        if pid.isdigit() and not Path(f'/proc/{pid}').exists():
            shutil.rmtree(path, ignore_errors=True)
