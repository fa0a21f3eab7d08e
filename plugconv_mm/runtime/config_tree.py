"""Configs as trees of dicts, lists and tuples: one walk over the dicts, one map over the values."""
from collections.abc import Callable, Iterator
from typing import Any


def walk(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield every dict of a tree, parents first, with its place.

    A dict may be changed as soon as it is yielded; the walk goes on into its new values.

    Args:
        node: A config, or a part of one.
        path: The place of ``node``; keys and indices are appended to it with dots, as ``--cfg-options`` has them.
    """
    if isinstance(node, dict):
        yield path, node
    parts = list(node.items()) if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in parts:
        yield from walk(value, f'{path}.{key}' if path else str(key))


def map_values(function: Callable[[Any], Any], node: Any) -> Any:
    """Copy a tree, with a function applied to all that is no dict, list or tuple."""
    if isinstance(node, dict):
        return type(node)({key: map_values(function, value) for key, value in node.items()})
    if isinstance(node, (list, tuple)):
        return type(node)(map_values(function, value) for value in node)
    return function(node)


def type_name(kind: str | type | None) -> str:
    """The last part of a type's name, without its scope; configs have the name or the class itself."""
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]
