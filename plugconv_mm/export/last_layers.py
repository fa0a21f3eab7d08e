"""Layers of a graph that no other layer follows, whose outputs are too fine for int8."""
from collections.abc import Collection, Iterable

Node = tuple[str, str, Collection[str], Collection[str]]


def last_layers(nodes: Iterable[Node], kinds: Collection[str]) -> list[str]:
    """Find the nodes of some kinds behind which none of these kinds comes.

    Args:
        nodes: Name, kind, names of the inputs and names of the outputs of each, in an order of computation.
        kinds: Kinds of the nodes that are layers.

    Returns:
        Their names.
    """
    leading, found = set(), []  # names of what leads to a layer
    for name, kind, inputs, outputs in reversed(list(nodes)):
        leads = not leading.isdisjoint(outputs)
        if kind in kinds and not leads:
            found.append(name)
        if kind in kinds or leads:
            leading.update(inputs)
    return found
