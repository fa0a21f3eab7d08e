"""Sizes of published networks, told from weights that belong to another size than the model's."""
import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from plugconv_mm.errors import CheckpointSizeError

if TYPE_CHECKING:
    from torch import nn

# Norms of outputs and classifiers differ between the checkpoints of one network; counters have no shape to compare.
_BESIDE = re.compile(r'(norm\d?|fc|head|classifier)\.|.*num_batches_tracked$')


def _shapes(state: Mapping[str, object], prefix: str) -> dict[str, tuple[int, ...]]:
    bare = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    shapes = {key: tuple(getattr(value, 'shape', ())) for key, value in bare.items() if not _BESIDE.match(key)}
    # Global filters are stretched to the model's while they are loaded.
    return {key: shape[::3] if key.endswith('.complex_weight') else shape for key, shape in shapes.items()}


@functools.cache
def _published(network: type, number: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of one size of a network."""
    with torch.device('meta'):
        model = network(**network.sizes()[number])  # type: ignore[attr-defined]
    return _shapes(model.state_dict(), '')


def _size_of(network: type, shapes: dict[str, tuple[int, ...]]) -> dict | None:
    sizes = network.sizes()  # type: ignore[attr-defined]
    return next((size for i, size in enumerate(sizes) if _published(network, i) == shapes), None)


def check_size(state: Mapping[str, object], own: Mapping[str, object], model: 'nn.Module', said: str) -> None:
    """Refuse the weights of a published network that is of another size than the model's backbone.

    Weights that are not those of a published size, and models that are of none, pass.

    Args:
        state: The weights, under the names that they would have in the model.
        own: The model's own names and weights.
        model: A backbone of ours, or a model that has one.
        said: The sentence with which the message begins.

    Raises:
        CheckpointSizeError: The size of the weights and that of the model are known, and differ.
    """
    for name, module in model.named_modules():
        if not hasattr(module, 'sizes'):
            continue
        network, prefix = type(module), f'{name}.' if name else ''
        given, expected = _shapes(state, prefix), _shapes(own, prefix)
        if not given or given == expected:
            continue
        size, own_size = _size_of(network, given), _size_of(network, expected)
        if size is not None and own_size is not None:
            raise CheckpointSizeError(
                f'{said} It has the weights of {network.__name__} with {_listed(size)}, and the model is one with '
                f'{_listed(own_size)}', network, size, type(model).__name__ if name else '')


def _listed(size: dict) -> str:
    return ', '.join(f'{name}={value!r}' for name, value in size.items())
