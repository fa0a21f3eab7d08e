"""Steps of the set-up and their stamps: hashes of everything that a finished step depends on."""
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Step(NamedTuple):
    """One step: its stamp's name, its title, how long it takes, what it depends on, and what it does."""

    name: str
    title: str
    about: str
    inputs: tuple[str | Path, ...]
    action: Callable[[], None]


def digest(inputs: tuple[str | Path, ...], previous: str = '') -> str:
    """Hashes what a step depends on: strings, the contents of files, and the step before it."""
    sha = hashlib.sha256(previous.encode())
    for item in inputs:
        sha.update(item.read_bytes() if isinstance(item, Path) else item.encode())
        sha.update(b'\0')
    return sha.hexdigest()


class Stamps:
    """Files in a folder, one for each finished step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f'{name}.done'

    def forget(self) -> None:
        for stamp in self.folder.glob('*.done'):
            stamp.unlink()

    def is_done(self, name: str, value: str) -> bool:
        stamp = self.path(name)
        return stamp.is_file() and stamp.read_text(encoding='utf-8') == value

    def mark_done(self, name: str, value: str) -> None:
        # Renamed into place: a half-written stamp never counts.
        partial = self.folder / f'{name}.partial'
        partial.write_text(value, encoding='utf-8')
        os.replace(partial, self.path(name))
