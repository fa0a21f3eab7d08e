"""The measured choices of this process, and their file."""
import json
import os
from typing import Any

from plugconv_mm.atomic_write import atomic_write, check_target
from plugconv_mm.errors import TuningFileError

_VARIABLE = 'PLUGCONV_TUNING'
_FORMAT = 'plugconv_mm tuning 1'

# Of each environment (device, torch, threads) the chosen form of each workload.
_Table = dict[str, dict[str, str]]


def tuning_file() -> str | None:
    """The file that the environment variable names, or None."""
    return os.environ.get(_VARIABLE) or None


class Choices:
    """Choices made by this process, and those that the file held at first use."""

    def __init__(self) -> None:
        self.made: _Table = {}
        self._read: dict[str, _Table] = {}

    def find(self, path: str | None, key: tuple[str, str], read_only: bool = False) -> str | None:
        """The choice for an environment and a workload, made here or read; with `read_only` only what was read.

        Raises:
            TuningFileError: If the file is not one of choices.
            OutputError: If there is no folder for it.
        """
        environment, text = key
        read: _Table = {}
        if path is not None:
            if path not in self._read:
                check_target(path)  # before anything is measured
                self._read[path] = _load(path)
            read = self._read[path]
        if not read_only and (chosen := self.made.get(environment, {}).get(text)):
            return chosen
        return read.get(environment, {}).get(text)

    def add(self, path: str | None, key: tuple[str, str], chosen: str) -> None:
        """Keep a choice, and write all that this process made into the file, beside what others wrote.

        Raises:
            TuningFileError: If the file is no longer one of choices; it stays as it is.
            OutputError: If it cannot be written.
        """
        environment, text = key
        self.made.setdefault(environment, {})[text] = chosen
        if path is None:
            return
        table = _load(path)
        for name, choices in self.made.items():
            table[name] = {**table.get(name, {}), **choices}
        with atomic_write(path) as file:
            file.write(json.dumps(dict(format=_FORMAT, choices=table), indent=1, sort_keys=True).encode())


def _load(path: str) -> _Table:
    try:
        with open(os.path.expanduser(path), 'rb') as file:
            content: Any = json.loads(file.read().decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TuningFileError(_advice(path, f'cannot be read: {error}')) from error
    table = content.get('choices') if isinstance(content, dict) and content.get('format') == _FORMAT else None
    if not isinstance(table, dict) or not all(
            isinstance(choices, dict) and all(isinstance(chosen, str) for chosen in choices.values())
            for choices in table.values()):
        raise TuningFileError(_advice(path, f'is not a file of choices with the format {_FORMAT!r}'))
    return table


def _advice(path: str, fault: str) -> str:
    return (f'{path}, which the environment variable {_VARIABLE} names, {fault}. It was left as it is: remove it to '
            f'measure anew, or let {_VARIABLE} name another file')
