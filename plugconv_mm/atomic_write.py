"""Files and folders that are either the old or the whole new one, whatever interrupts the writing."""
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from plugconv_mm.errors import NoFolderError, OutputError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the place of ``path`` once it is whole.

    It is written beside the old one. What fails on the way, a full disk for example, leaves the old one as it was;
    a process that is killed leaves a ``.NAME.PID.part`` besides, which is of no use.

    Raises:
        NoFolderError: There is no folder for it.
        OutputError: ``path`` is a folder, or writing fails.
    """
    path = os.path.realpath(os.path.expanduser(os.fspath(path)))
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise OutputError(f'{path} is a folder: name a file to write')
    if not os.path.isdir(folder):
        raise NoFolderError(f'there is no folder {folder} to write {name} into: make it first')
    part = os.path.join(folder, f'.{name}.{os.getpid()}.part')
    try:
        with open(part, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        # torch.save answers a full disk with a RuntimeError about its zip file, in the handling of the OSError.
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            reason = f'{cause.strerror}; {name} was not written, what was there stays'
            raise OutputError(cause.errno, reason, path) from error
        raise


@contextlib.contextmanager
def atomic_folder(out: str | os.PathLike) -> Iterator[Path]:
    """A new folder beside ``out``, which takes its place when the block ends without an error.

    Nothing is left behind if it does not, nor by an earlier build of ``out`` that was killed.

    Args:
        out: The folder to be; what it held before goes.

    Yields:
        The folder to write into.
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


def _remove_leftovers(out: Path) -> None:
    for path in out.parent.glob(f'.{out.name}.*-*'):
        pid = path.name.rpartition('-')[2]
        if pid.isdigit() and not Path(f'/proc/{pid}').exists():
            shutil.rmtree(path, ignore_errors=True)
