"""Operators made for the place of a layer."""
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.plugging.attention import Grid, TokenMixer, kind_of, prefix_of, width_of
from plugconv_mm.plugging.convs import CONVS
from plugconv_mm.plugging.map_sizes import without_values
from plugconv_mm.plugging.plugged import PluggedAttention, PluggedConv2d
from plugconv_mm.plugging.rules import Rule
from plugconv_mm.plugging.shared_warehouses import group_of

# Arguments that may be 'auto', and their values for a map of H rows and W columns; the filter of GF has W // 2 + 1.
AUTO: dict[str, Callable[[int, int], Any]] = {
    'meta_size': max,
    'filter_size': lambda rows, columns: (rows, columns // 2 + 1),
    'h': lambda rows, columns: rows,
    'w': lambda rows, columns: columns // 2 + 1,
}


def _own_arguments(rule: Rule, size: set[tuple[int, int]] | None) -> dict[str, Any]:
    """The operator's own arguments, with numbers for 'auto'."""
    own = rule.own
    for key, value in own.items():
        if value == 'auto' and key in AUTO:
            if not size:
                raise ValueError(f"{key}='auto' needs input_size, and a pass over it that reaches the layer: give "
                                 f'{key} a number')
            if len(size) > 1:
                raise ValueError(f"{key}='auto' stands for one size of the map, and the layer works on "
                                 f'{" and ".join(f"{h}x{w}" for h, w in sorted(size))}: give {key} a number')
            own[key] = AUTO[key](*next(iter(size)))
    return own


def _padding(old: nn.Module) -> Any:
    """The padding of a convolution; 'same' where its forward pads its input so, as those of EfficientNets do."""
    if type(old).forward is nn.Conv2d.forward:
        return old.padding
    shell = without_values(old)
    x = torch.empty(1, old.in_channels, 64, 63, device='meta', dtype=old.weight.dtype)
    with torch.no_grad():
        given, said = shell(x).shape[2:], nn.Conv2d.forward(shell, x).shape[2:]
    if given == said:
        return old.padding
    if given == x.shape[2:]:
        return 'same'
    raise ValueError(f'its forward pads by itself, and makes a map of 64x63 one of {given[0]}x{given[1]}, where its '
                     f'stride and padding say {said[0]}x{said[1]}')


def make_of_conv(old: nn.Module, name: str, rule: Rule, size: set[tuple[int, int]] | None,
                 warehouse: KernelWarehouse) -> nn.Module:
    """Make what takes the place of a convolution.

    Args:
        old: The convolution.
        name: Its name.
        rule: Its rule.
        size: All sizes of its map, where they are known.
        warehouse: What a ``KWConv2d`` gets its kernels from.

    Raises:
        ValueError: If the operator cannot take its place.
        TypeError: For arguments that the operator does not have.
    """
    arguments: dict[str, Any] = {key: getattr(old, key) for key in (
        'in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups')}
    arguments['padding'] = _padding(old)
    arguments['bias'] = rule.start == 'scratch' and old.bias is not None
    own = _own_arguments(rule, size)
    if rule.kind == 'KWConv2d':
        own = {'warehouse': warehouse, 'name': group_of(rule, name)}
    make = rule.to if callable(rule.to) else CONVS[rule.kind]
    new = make(**arguments, **own)
    if rule.kind != 'KWConv2d':
        new.to(old.weight.device, old.weight.dtype)
    module = PluggedConv2d(old, new) if rule.start == 'residual' else new
    return module.train(old.training)


def make_of_attention(model: nn.Module, name: str, rule: Rule, size: set[tuple[int, int]] | None, source: str | None,
                      grids: dict[str, Grid]) -> nn.Module:
    """Make what takes the place of an attention.

    Args:
        model: The model.
        name: The attention.
        rule: Its rule.
        size: All sizes of its map, where they are known.
        source: The convolution that makes the map, where its calls do not give the size.
        grids: What such sizes are read from, by convolution; a new one is entered.

    Raises:
        ValueError: If the operator cannot take its place, or if the size of its map cannot be known.
        TypeError: For arguments that the operator does not have.
    """
    old = model.get_submodule(name)
    kind = kind_of(old)
    channels = width_of(model, name, kind)
    own = rule.own
    fixed, prefix = own.get('grid'), own.get('prefix', prefix_of(model, name))
    if kind.sized and {'grid', 'prefix'} & set(own):
        raise ValueError('its calls give the size of the map, and no tokens are ahead of it: leave out grid and prefix')
    if not (kind.sized or fixed or source):
        raise ValueError(f'its calls do not give the size of the map that its tokens form after {prefix} tokens ahead '
                         'of it, and no convolution that makes such a map is known: give input_size, for a pass that '
                         'reaches it, or the rule grid=(H, W), and prefix, where other tokens are ahead')
    own = _own_arguments(rule, {tuple(fixed)} if fixed else size)
    own = {key: value for key, value in own.items() if key not in ('grid', 'prefix')}
    make = rule.to if callable(rule.to) else CONVS[rule.kind]
    operator = make(in_channels=channels, out_channels=channels, kernel_size=1, stride=1, padding=0, dilation=1,
                    groups=1 if rule.kind == 'GnConv2d' else channels, bias=rule.start == 'scratch', **own)
    like = next(old.parameters())
    operator.to(like.device, like.dtype)
    grid = None if kind.sized else tuple(fixed) if fixed else grids.setdefault(source, Grid())
    drop = getattr(old, kind.drop) if kind.drop and rule.start == 'scratch' else nn.Identity()
    module: nn.Module = TokenMixer(operator, kind, drop, 0 if kind.sized else prefix, grid)
    if rule.start == 'residual':
        module = PluggedAttention(old, module, channels)
    return module.train(old.training)
