"""Sizes of the maps that layers of a model work on, from one pass without values."""
import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.errors import PlugError
from plugconv_mm.plugging.attention import TokenMixer, attentions_of, kind_of

Sizes = dict[str, set[tuple[int, int]]]


def map_sizes(model: nn.Module, names: Iterable[str], input_size: tuple[int, int]) -> Sizes:
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
    sizes: Sizes = defaultdict(set)

    def watch(shell: nn.Module) -> None:
        for name in names:
            shell.get_submodule(name).register_forward_pre_hook(
                lambda _, inputs, name=name: sizes[name].add(tuple(inputs[0].shape[2:])))

    _run(model, input_size, watch, sizes)
    return dict(sizes)


def token_maps(model: nn.Module, prefixes: Mapping[str, int],
               input_size: tuple[int, int]) -> tuple[Sizes, dict[str, str], dict[str, str]]:
    """Find the heights and widths of the maps that the tokens of some attentions form, as :func:`map_sizes` does.

    Where the call of an attention does not give them, they are those of the last convolution ahead of it, outside of
    any attention, whose map has as many positions as there are tokens.

    Args:
        model: A model that takes a batch of images, (N, 3, H, W).
        prefixes: Numbers of tokens ahead of the map, by the names of the attentions.
        input_size: H and W of the image.

    Returns:
        For each attention that was reached and whose tokens form a map, all sizes of it; the names of the
        convolutions that give the sizes, by those of the attentions; and why attentions cannot be plugged that are
        called with a mask or as cross-attention.

    Raises:
        PlugError: If the model fails before any of the attentions.
    """
    sizes: Sizes = defaultdict(set)
    sources: dict[str, str] = {}
    refused: dict[str, str] = {}
    made: dict[str, tuple[int, int]] = {}

    def keep(name: str, output: Tensor) -> None:
        made.pop(name, None)
        made[name] = tuple(output.shape[2:])  # the last of them is the newest

    def see(name: str, windows: bool, attention: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if windows:
            sizes[name].add(tuple(args[0].shape[1:3]))
            return
        try:
            call = kind_of(attention).read(*args, **kwargs)  # type: ignore[union-attr]
        except PlugError as error:
            refused[name] = str(error)
            return
        if call.size is not None:
            sizes[name].add(tuple(call.size))
        elif call.x.dim() == 3:
            for source, (height, width) in reversed(made.items()):
                if call.x.shape[1] - height * width in (0, prefixes[name]):
                    sources[name] = source
                    sizes[name].add((height, width))
                    return

    def watch(shell: nn.Module) -> None:
        inner = {id(part) for module in (*attentions_of(shell).values(), *shell.modules())
                 if isinstance(module, TokenMixer) or kind_of(module) for part in module.modules()}
        for name, module in shell.named_modules():
            if isinstance(module, nn.Conv2d) and id(module) not in inner:
                module.register_forward_hook(lambda _, inputs, output, name=name: keep(name, output))
        for name in prefixes:
            kind = kind_of(shell.get_submodule(name))
            site = name.rpartition('.')[0] if kind.windows else name  # type: ignore[union-attr]
            shell.get_submodule(site).register_forward_pre_hook(
                lambda module, args, kwargs, name=name, windows=site != name: see(name, windows, module, args, kwargs),
                with_kwargs=True)

    _run(model, input_size, watch, sizes, refused)
    return dict(sizes), sources, refused


def without_values(model: nn.Module) -> nn.Module:
    """A copy of a model without memory for its weights, for evaluation."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shell = copy.deepcopy(model, {
        key: nn.Parameter(torch.empty_like(tensor, device='meta'), requires_grad=False)
        if isinstance(tensor, nn.Parameter) else torch.empty_like(tensor, device='meta')
        for key, tensor in tensors.items()})
    shell.eval()  # which returns nothing in backbones of OpenMMLab
    return shell


def _run(model: nn.Module, input_size: tuple[int, int], watch: Callable[[nn.Module], None],
         *found: Mapping[str, Any]) -> None:
    """Run a copy of a model without memory for its weights, whose layers `watch` gives hooks that fill `found`."""
    shell = without_values(model)
    watch(shell)
    try:
        with torch.no_grad():
            shell(torch.empty(1, 3, *input_size, device='meta', dtype=next(shell.parameters()).dtype))
    except PlugError:
        raise
    except Exception as error:  # whatever a model does behind the layers, or without values
        if not any(found):
            raise PlugError(f'{type(model).__name__} cannot be run on an image of {input_size[0]}x{input_size[1]} '
                            f'without values, to find the sizes of its maps: {type(error).__name__}: {error}. Give '
                            "numbers in place of 'auto', and grid=(H, W) to rules for attention") from error
