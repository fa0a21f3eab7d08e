"""Rows of a benchmark in a JSON file, with the machine that they were measured on; the options that all have."""
import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.ops.mechanisms.tuning import processor


def make_parser(doc: str, name: str) -> argparse.ArgumentParser:
    """Make a parser with ``--threads``, ``--seconds`` and ``--out``.

    Args:
        doc: The benchmark's docstring.
        name: The benchmark's name, of which its file of results has its own.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seconds', type=float, default=2., help='least time for a row (default: 2)')
    parser.add_argument('--out', type=Path, default=Path(f'work_dirs/benchmarks/{name}.json'),
                        help='file of results, to which those that it lacks are added (default: %(default)s)')
    return parser


def machine(device: str = 'cpu') -> dict[str, str]:
    """The processor or card, threads and torch that times depend on."""
    if device == 'cuda':
        return dict(card=torch.cuda.get_device_name(), torch=torch.__version__)
    return dict(cpu=processor(), capability=torch.backends.cpu.get_cpu_capability(),
                threads=str(torch.get_num_threads()), torch=torch.__version__)


class Results:
    """Rows by name, each measured once and written at once, so that an interrupted benchmark goes on where it was.

    Args:
        path: The JSON file.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        SystemExit: If the file has results of another machine.
    """

    def __init__(self, path: Path, device: str = 'cpu') -> None:
        self.path, self.machine, self.rows = path, machine(device), {}
        if path.is_file():
            found = json.loads(path.read_text())
            if found['machine'] != self.machine:
                raise SystemExit(f'{path} has results of {found["machine"]}, and this is {self.machine}: name another '
                                 'file with --out, or remove this one')
            self.rows = found['rows']
        print('; '.join(f'{key} {value}' for key, value in self.machine.items()) + '\n', flush=True)

    def row(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of this name: the one on file, or else the one that is measured now."""
        if name not in self.rows:
            self.rows[name] = measure()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as file:
                file.write(json.dumps(dict(machine=self.machine, rows=self.rows), indent=1).encode())
        return self.rows[name]


def header(*cells: str) -> None:
    """Print the head of a Markdown table."""
    print(f'| {" | ".join(cells)} |\n{"| --- " * len(cells)}|', flush=True)


def line(*cells: object) -> None:
    """Print a row of a Markdown table; numbers to three digits."""
    print(f'| {" | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)} |', flush=True)
