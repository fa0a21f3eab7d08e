"""Sizes of the maps that layers of a model work on, from one pass without values."""
import copy
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

from plugconv_mm.errors import PlugError


def map_sizes(model: nn.Module, names: Iterable[str], input_size: tuple[int, int]) -> dict[str, set[tuple[int, int]]]:
    """Find the heights and widths of the maps that reach some layers.

    A copy of the model, without memory for its weights, is run on an image of these sizes. What comes after an
    operation that needs values, such as the proposals of a two-stage detector, is not reached.

    Args:
        model: A model that takes a batch of images, (N, 3, H, W).
        names: The layers.
        input_size: H and W of the image.

    Returns:
        For each layer that was reached, all sizes of its inputs.

    Raises:
        PlugError: If the model fails before any of the layers.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shell = copy.deepcopy(model, {
        key: nn.Parameter(torch.empty_like(tensor, device='meta'), requires_grad=False)
        if isinstance(tensor, nn.Parameter) else torch.empty_like(tensor, device='meta')
        for key, tensor in tensors.items()}).eval()
    sizes = defaultdict(set)
    for name in names:
        shell.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: sizes[name].add(tuple(inputs[0].shape[2:])))
    try:
        with torch.no_grad():
            shell(torch.empty(1, 3, *input_size, device='meta', dtype=next(shell.parameters()).dtype))
    except Exception as error:  # whatever a model does behind the layers, or without values
        if not sizes:
            raise PlugError(f'{type(model).__name__} cannot be run on an image of {input_size[0]}x{input_size[1]} '
                            f"without values, to find the sizes of its maps: {error}. Give numbers in place of 'auto'"
                            ) from error
    return dict(sizes)
