"""Running the converters in this process."""
import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs a command of this name: exit status, stdout, stderr."""

    def run(name, *arguments):
        path = str(TOOLS / name)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name='__main__')
        return end.value.code, *capsys.readouterr()

    return run
