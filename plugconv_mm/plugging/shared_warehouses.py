"""Warehouses that plugged layers share."""
import inspect
import math
from collections.abc import Mapping, Sequence

from torch import nn

from plugconv_mm.errors import PlugError
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.plugging.convs import KWConv2d
from plugconv_mm.plugging.plugged import PluggedConv2d
from plugconv_mm.plugging.rules import Rule, stage_of

_ARGUMENTS = [name for name in inspect.signature(KernelWarehouse).parameters if name != 'sharing_range']
# An attention has an output for each pair of a cell of the warehouse and a cell of its own kernel. Published networks
# have at most three times as many parameters in a layer as its kernel had; what is far beyond would fill any memory.
_MOST = 100


def make_warehouse(rule: Rule) -> KernelWarehouse:
    """Make the warehouse of the layers that a rule means.

    Raises:
        PlugError: Arguments that a warehouse does not have.
    """
    own = rule.own if rule.kind == 'KWConv2d' else {}
    if own.pop('share', None) not in (None, 'stage', 'model') or set(own) - set(_ARGUMENTS):
        raise PlugError(f"{rule.said}: KWConv2d has share='stage' or 'model', and the arguments of KernelWarehouse, "
                        f'{", ".join(_ARGUMENTS)}; got {dict(rule.own)}')
    return KernelWarehouse(**own)


def group_of(rule: Rule, name: str) -> str:
    """The group of the warehouse to which a layer belongs."""
    return {'stage': stage_of(name), 'model': 'model'}.get(rule.own.get('share'), name).replace('_', '-')


def allocate(warehouses: Sequence[KernelWarehouse], model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Make the cells of warehouses, and the attentions of all layers that draw from them.

    A warehouse is a part of the first of its layers.

    Args:
        warehouses: The warehouses, of which all layers are made.
        model: The model, in which the layers are not yet.
        modules: What takes the places of its layers, by their names.

    Raises:
        PlugError: Cells that do not fit the kernels, or of which there would be far too many.
    """
    layers = {name: layer for name, module in modules.items() if isinstance(
        layer := module.new if isinstance(module, PluggedConv2d) else module, KWConv2d)}
    for warehouse in warehouses:
        try:
            cells = warehouse.cells()
        except ValueError as error:
            raise PlugError(str(error)) from error
        for (number, c_out, c_in), group, index in zip(cells, warehouse.names, range(len(cells)), strict=True):
            kernels = {name: math.prod(layer.kernel_shape) for name, layer in layers.items()
                       if layer.warehouse is warehouse and layer.warehouse_index == index}
            name = max(kernels, key=lambda name: kernels[name])
            outputs = kernels[name] // (c_out * c_in) * (number + 1)
            hidden = max(int(layers[name].in_channels * warehouse.reduction), 16)
            if outputs * hidden > _MOST * kernels[name]:
                raise PlugError(
                    f'the layers that share the warehouse {group!r} have kernels with {c_out} output and {c_in} input '
                    f'channels in common, which makes {number} cells and an attention of {outputs * hidden:,} '
                    f'parameters in {name} alone, for a kernel of {kernels[name]:,}: let fewer layers share, those of '
                    "like widths (where=..., share='stage')")
        warehouse.allocate(nn.ModuleList(modules.values()))
        next(layer for layer in layers.values() if layer.warehouse is warehouse).own_warehouse = warehouse
    for name, layer in layers.items():
        weight = model.get_submodule(name).weight
        for part in (layer, layer.warehouse):
            part.to(weight.device, weight.dtype)
