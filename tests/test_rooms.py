"""The folders of the package: which may import which, and how long a file may be."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'plugconv_mm'
# Folders and files below everything else, and what they may import of the package.
BASE = {
    'version': set(),
    'errors': set(),
    'atomic_write': {'errors'},
    'compat': {'errors', 'atomic_write', 'checkpoint'},  # compat/loading.py hands mmengine the loader of checkpoint
    'checkpoint': {'errors', 'atomic_write', 'ops'},
    'datasets': {'errors', 'atomic_write'},
    'registry': {'errors', 'compat'},
    # All but compat and version are for editors alone.
    '__init__': {'compat', 'version', 'checkpoint', 'models', 'ops', 'plugging', 'registry'},
}
LOWER = set(BASE) - {'__init__'}
ARROWS = {
    **BASE,
    'ops': {'errors', 'atomic_write'},
    'plugging': {'errors', 'ops'},
    'models': LOWER | {'ops', 'plugging'},
    'engine': LOWER | {'ops', 'plugging', 'models'},
    'runtime': LOWER | {'ops', 'plugging', 'models', 'engine'},
    'visualization': LOWER | {'ops', 'plugging', 'models', 'engine', 'runtime'},
    'analysis': LOWER | {'ops', 'plugging', 'models', 'engine', 'runtime'},
    'export': LOWER | {'ops', 'plugging', 'models', 'engine', 'runtime', 'analysis'},  # times as the analyses do
}
MAX_LINES = 320
LONGER = {}  # files that are longer, tables that is, and why; CONTRIBUTING.md names them too
FILES = sorted(PACKAGE.rglob('*.py'))


def room_of(name):
    """The folder or file right below the package that a module is in."""
    parts = name.split('.')
    return parts[1] if len(parts) > 1 else '__init__'


def imports_of(file):
    """Full names of what a file imports of the package, with the line of each, those inside functions as well."""
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split('.')[0] == 'plugconv_mm':
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{file}:{node.lineno}: name the package in imports'
            if node.module == 'plugconv_mm':
                for alias in node.names:
                    yield f'plugconv_mm.{alias.name}', node.lineno
            elif (node.module or '').startswith('plugconv_mm.'):
                yield node.module, node.lineno


def arrows_of(file):
    own = room_of('.'.join(file.relative_to(ROOT).with_suffix('').parts))
    for name, line in imports_of(file):
        other = room_of(name)
        if other == '__version__':
            other = '__init__'
        if other != own:
            yield own, other, line


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file):
    for own, other, line in arrows_of(file):
        assert other in ARROWS[own], f'{file.relative_to(ROOT)}:{line}: {own} must not import {other}'


def test_no_circle_between_folders():
    """The arrows that are allowed form no circle, so none can be drawn by what is imported."""
    below = {room: set(others) for room, others in ARROWS.items()}
    while below:
        ends = {room for room, others in below.items() if not others}
        assert ends, f'a circle among {", ".join(sorted(below))}'
        below = {room: others - ends for room, others in below.items() if room not in ends}


def test_every_folder_has_its_place():
    assert {room_of('.'.join(file.relative_to(ROOT).with_suffix('').parts)) for file in FILES} == set(ARROWS)


def test_files_are_short():
    lengths = {str(file.relative_to(PACKAGE)): len(file.read_text(encoding='utf-8').splitlines()) for file in FILES}
    too_long = {name for name, length in lengths.items() if length > MAX_LINES}
    assert too_long <= set(LONGER), f'more than {MAX_LINES} lines: {", ".join(sorted(too_long - set(LONGER)))}'
