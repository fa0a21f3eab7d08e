"""Files and folders that are either the old or the whole new one, whatever interrupts the writing."""
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from plugconv_mm.errors import OutputError, OutputFolderNotFoundError, UserError


def check_target(path: str | os.PathLike) -> str:
    """The file that ``path`` names, links followed, before the work begins whose result is written there.

    Raises:
        OutputFolderNotFoundError: If there is no folder for it.
        OutputError: If it is a folder.
    """
    path = os.path.realpath(os.path.expanduser(os.fspath(path)))
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise OutputError(f'{path} is a folder: name a file to write')
    if not os.path.isdir(folder):
        raise OutputFolderNotFoundError(f'there is no folder {folder} to write {name} into: make it first')
    return path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file to write, which takes the place of ``path`` once it is whole.

    It is written beside the old one. A failure on the way, such as a full disk, leaves the old one as it was; a process
    that is killed leaves a ``.NAME.PID.part`` besides, which is of no use.

    Args:
        path: The file to be; a link is followed.

    Raises:
        OutputFolderNotFoundError: If there is no folder for it.
        OutputError: If ``path`` is a folder, or writing fails; ``errno`` tells why.
    """
    path = check_target(path)
    folder, name = os.path.split(path)
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
        if isinstance(cause, OSError) and not isinstance(cause, UserError) and cause.filename in (None, part):
            reason = f'{cause.strerror or cause}; {name} was not written, what was there stays'
            raise OutputError(cause.errno, reason, path) from error
        raise


@contextlib.contextmanager
def atomic_folder(out: str | os.PathLike) -> Iterator[Path]:
    """Make a new folder beside ``out``, which takes its place when the block ends without an error.

    Nothing is left behind if it does not, nor by an earlier build of ``out`` that was killed.

    Args:
        out: The folder to be; an older one of this name is removed.

    Yields:
        The folder to write into.

    Raises:
        OutputError: If ``out`` is a file, or the folder above it cannot be made.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise OutputError(f'{out} is a file: name a folder')
    temp = out.parent / f'.{out.name}.building-{os.getpid()}'
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        temp.mkdir()
    except OSError as error:
        raise OutputError(error.errno, f'{error.strerror}; {out.name} cannot be made there', str(out.parent)) from error
    try:
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
