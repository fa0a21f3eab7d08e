"""The repository's root, and the modules of its commands."""
import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_file(path: str) -> ModuleType:
    """Import a file that is in no package, by its path from the root."""
    spec = importlib.util.spec_from_file_location(f'{Path(path).stem}_of_{Path(path).parent.name}', ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tool(name: str) -> ModuleType:
    """Import a command by its name below ``tools``, such as 'analysis_tools/compare'."""
    return load_file(f'tools/{name}.py')
