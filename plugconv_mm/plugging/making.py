"""Operators made for the place of a layer."""
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.plugging.attention import Grid, TokenMixer, kind_of, prefix_of, width_of
from plugconv_mm.plugging.blocks import BLOCKS
from plugconv_mm.plugging.convs import CONVS
from plugconv_mm.plugging.dry_pass import Seen, without_values
from plugconv_mm.plugging.plugged import PluggedAttention, PluggedBlock, PluggedConv2d
from plugconv_mm.plugging.rules import Rule
from plugconv_mm.plugging.shared_warehouses import group_of

# Arguments that may be 'auto', and their values for a map of H rows and W columns; the filter of GF has W // 2 + 1.
AUTO: dict[str, Callable[[int, int], Any]] = {
    'meta_size': max,
    'filter_size': lambda rows, columns: (rows, columns // 2 + 1),
    'h': lambda rows, columns: rows,
    'w': lambda rows, columns: columns // 2 + 1,
}


def _own_arguments(rule: Rule, size: set[tuple[int, int]]) -> dict[str, Any]:
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
            rows, columns = next(iter(size))
            if rule.kind == 'ParC2d':  # has one axis, the others have two of one length
                own[key] = columns if own.get('direction') == 'W' else rows
            else:
                own[key] = AUTO[key](rows, columns)
    return own


def _padding(old: nn.Module) -> Any:
    """The padding of a convolution; 'same' where its forward pads its input so, as those of EfficientNets do."""
    if type(old).forward is nn.Conv2d.forward:
        return old.padding
    taken = list(inspect.signature(old.forward).parameters)
    if len(taken) > 1:
        raise ValueError(f'it is called with {", ".join(taken)}, and operators work on a map alone')
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


def make_of_conv(old: nn.Module, name: str, rule: Rule, seen: Seen, warehouse: KernelWarehouse) -> nn.Module:
    """Make what takes the place of a convolution.

    Args:
        old: The convolution.
        name: Its name.
        rule: Its rule.
        seen: What is known of its calls.
        warehouse: What a ``KWConv2d`` gets its kernels from.

    Raises:
        ValueError: If the operator cannot take its place.
        TypeError: For arguments that the operator does not have.
    """
    arguments: dict[str, Any] = {key: getattr(old, key) for key in (
        'in_channels', 'out_channels', 'kernel_size', 'stride', 'dilation', 'groups')}
    arguments['padding'] = _padding(old)
    arguments['bias'] = rule.start != 'residual' and old.bias is not None
    own = _own_arguments(rule, set(seen.sizes))
    if rule.kind == 'KWConv2d':
        own = {'warehouse': warehouse, 'name': group_of(rule, name)}
    make = rule.to if callable(rule.to) else CONVS[rule.kind]
    new = make(**arguments, **own)
    if rule.kind != 'KWConv2d':
        new.to(old.weight.device, old.weight.dtype)
    module = PluggedConv2d(old, new) if rule.start == 'residual' else new
    return module.train(old.training)


def make_of_attention(model: nn.Module, name: str, rule: Rule, seen: Seen, grids: dict[str, Grid]) -> nn.Module:
    """Make what takes the place of an attention.

    Args:
        model: The model.
        name: The attention.
        rule: Its rule.
        seen: What is known of its calls.
        grids: What such sizes are read from, by convolution; a new one is entered.

    Raises:
        ValueError: If the operator cannot take its place, or if the size of its map cannot be known.
        TypeError: For arguments that the operator does not have.
    """
    old = model.get_submodule(name)
    kind = kind_of(old)
    if rule.start == 'embed':
        raise ValueError("an attention has no kernel that an operator could hold: use start='residual'")
    channels = width_of(model, name, kind)
    own = rule.own
    fixed, prefix = own.get('grid'), own.get('prefix', prefix_of(model, name))
    if kind.sized and {'grid', 'prefix'} & set(own):
        raise ValueError('its calls give the size of the map, and no tokens are ahead of it: leave out grid and prefix')
    if not (kind.sized or fixed or seen.source):
        raise ValueError(f'its calls do not give the size of the map that its tokens form after {prefix} tokens ahead '
                         'of it, and no convolution that makes such a map is known: give input_size, for a pass that '
                         'reaches it, or the rule grid=(H, W), and prefix, where other tokens are ahead')
    own = _own_arguments(rule, {tuple(fixed)} if fixed else set(seen.sizes))
    own = {key: value for key, value in own.items() if key not in ('grid', 'prefix')}
    make = rule.to if callable(rule.to) else CONVS[rule.kind]
    operator = make(in_channels=channels, out_channels=channels, kernel_size=1, stride=1, padding=0, dilation=1,
                    groups=1 if rule.kind == 'GnConv2d' else channels, bias=rule.start == 'scratch', **own)
    like = next(old.parameters())
    operator.to(like.device, like.dtype)
    grid = None if kind.sized else tuple(fixed) if fixed else grids.setdefault(seen.source, Grid())
    drop = getattr(old, kind.drop) if kind.drop and rule.start == 'scratch' else nn.Identity()
    module: nn.Module = TokenMixer(operator, kind, drop, 0 if kind.sized else prefix, grid)
    if rule.start == 'residual':
        module = PluggedAttention(old, module, channels)
    return module.train(old.training)


def make_of_block(old: nn.Module, rule: Rule, seen: Seen) -> nn.Module:
    """Make what takes the place of a residual block.

    Args:
        old: The block.
        rule: Its rule.
        seen: What is known of its calls.

    Raises:
        ValueError: If the operator cannot take its place.
        TypeError: For arguments that the operator does not have.
    """
    if rule.start == 'embed':
        raise ValueError("a block has no kernel that an operator could hold: use start='residual'")
    if not (seen.sizes or seen.changes):
        raise ValueError('its width is that of the maps which it is called with: give input_size, for a pass that '
                         'reaches it')
    if seen.changes:
        before, after = min(seen.changes)
        raise ValueError(f'{rule.kind} takes the place of blocks that are called with a map (N, C, H, W) alone and '
                         f'give one like it, and this makes {after or "no tensor"} of {before or "no tensor"}, the '
                         'batch left out')
    new = BLOCKS[rule.kind](seen.channels, **_own_arguments(rule, set(seen.sizes)))
    like = next(old.parameters())
    new.to(like.device, like.dtype)
    return (PluggedBlock(old, new, seen.channels) if rule.start == 'residual' else new).train(old.training)
