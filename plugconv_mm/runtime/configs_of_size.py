"""Configs that take the weights of a published network."""
import inspect
from typing import Any

from plugconv_mm.compat.packages import own_files
from plugconv_mm.runtime.read_config import read_config


def configs_of_size(network: type, size: dict[str, Any], model: str = '') -> list[str]:
    """Find the configs of this package whose backbone is of a size.

    Args:
        network: The class of the backbone.
        size: Arguments of the network, one of its ``sizes``.
        model: The class of the whole model, where it has to be one of these.

    Returns:
        Paths of the configs, below the folder that holds them; empty where they are not installed.
    """
    root = own_files()
    kind = f'plugconv_mm.{network.__name__}'
    defaults = {name: argument.default for name, argument in inspect.signature(network).parameters.items()}
    names = {name for other in network.sizes() for name in other}  # type: ignore[attr-defined]
    found = []
    for folder in sorted(path.parent for path in root.glob('configs/*/metafile.yml')):
        paths = sorted(folder.glob('*.py'))
        if not any(f"'{kind}'" in path.read_text(encoding='utf-8') for path in paths):
            continue  # reading configs takes a while
        for path in paths:
            cfg = read_config(str(path)).get('model', {})
            backbone = cfg.get('backbone', {})
            if backbone.get('type') == kind and model in ('', cfg.type.rpartition('.')[2]) and all(
                    _plain(backbone.get(name, defaults[name])) == _plain(size.get(name, defaults[name]))
                    for name in names):
                found.append(str(path.relative_to(root)))
    return found


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value
