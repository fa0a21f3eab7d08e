"""Operators in the place of, or beside, the convolutions and the attention of a model that exists."""
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from plugconv_mm.errors import PlugError
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.plugging.attention import ATTENTIONS, Grid, TokenMixer, attentions_of, kind_of, prefix_of
from plugconv_mm.plugging.convs import CONVS, KWConv2d
from plugconv_mm.plugging.making import AUTO, make_of_attention, make_of_conv
from plugconv_mm.plugging.map_sizes import Sizes, map_sizes, token_maps
from plugconv_mm.plugging.plugged import Beside, replace
from plugconv_mm.plugging.report import Plugged, PlugReport
from plugconv_mm.plugging.rules import Rule, as_rules, near_names
from plugconv_mm.plugging.shared_warehouses import allocate, make_warehouse

_PLUGGED = (Beside, TokenMixer, *CONVS.values())


def plug(model: nn.Module, rules: Sequence[Rule | Mapping[str, Any]], input_size: tuple[int, int] | None = None,
         dry_run: bool = False) -> PlugReport:
    """Plug operators into the convolutions, and into the attention, of a model, in place.

    The first rule that means a layer decides what becomes of it. Names, classes and weights of all other layers stay.
    Layers that are one module under several names stay one.

    Attention is plugged as a whole, where its tokens form a map and its class is one of
    ``plugconv_mm.plugging.ATTENTIONS``: the operator, ``ParCMixer`` for example, works on the map as a depthwise
    convolution would (``GnConv2d`` mixes the channels, too). With ``start='scratch'`` the attention is gone, and a
    transformer of such blocks is a ConvNet, as in Fast-ParC, https://arxiv.org/abs/2210.04020. Tokens ahead of the map,
    such as the class token, get the mean of the operator's map.

    Args:
        model: Any model whose layers are ``nn.Conv2d`` or its children, or attention, on any device, not compiled yet.
        rules: :class:`~plugconv_mm.plugging.rules.Rule` objects, or dicts with their arguments. ``'auto'`` as
            ``meta_size`` of ParC, and as
            ``filter_size`` or ``h`` and ``w`` of the global filter, stands for the size of the layer's map.
            ``dict(type='KWConv2d', share='stage', cell_num_ratio=…)`` lets the layers of each stage share a warehouse
            (``share='model'``: all layers of the rule; by default each has its own), with the arguments of
            :class:`plugconv_mm.ops.KernelWarehouse`. For attention whose calls do not give the size of the map, as
            in ViT, ``grid=(H, W)`` stands for `input_size` and fixes the size, and ``prefix`` is the number of tokens
            ahead of the map, where the model does not say it.
        input_size: H and W of the images for which ``'auto'``, and the convolution that makes the map of tokens, are
            found.
        dry_run: Whether to say what would be done, and to leave the model as it is.

    Returns:
        What was plugged and what was skipped.

    Raises:
        PlugError: A rule that means no layer, or a layer that the operator cannot replace, that is plugged already, or
            that is frozen; attention that is called with a mask or as cross-attention, or tokens that form no map; the
            model is as it was then.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()
        >>> x = torch.rand(1, 3, 32, 32)
        >>> y = net(x)
        >>> rule = dict(target='2', to=dict(type='ParCHW2d', meta_size='auto'), start='residual')
        >>> report = plug(net, [rule], input_size=(32, 32))
        >>> report.plugged, torch.equal(net(x), y)
        (['2'], True)
    """
    if hasattr(model, '_orig_mod') or isinstance(model, torch.jit.ScriptModule):
        raise PlugError(f'{type(model).__name__} is compiled: plug the operators into the model before it is compiled')
    made = as_rules(rules)
    chosen = _choose(model, made)
    sizes, sources, refused = _sizes(model, chosen, input_size)
    grids: dict[str, Grid] = {}
    warehouses = [make_warehouse(rule) for rule in made]
    by_module: dict[nn.Module, nn.Module] = {}
    report, modules = PlugReport(), {}
    for name, rule in chosen.items():
        old = model.get_submodule(name)
        before = sum(p.numel() for p in old.parameters())
        if old not in by_module:
            try:
                _check(model, name, old, rule)
                if name in refused:
                    raise ValueError(refused[name])
                if kind_of(old):
                    by_module[old] = make_of_attention(model, name, rule, sizes.get(name), sources.get(name), grids)
                else:
                    by_module[old] = make_of_conv(old, name, rule, sizes.get(name), warehouses[made.index(rule)])
            except (ValueError, TypeError) as error:
                if rule.unfit == 'error':
                    raise PlugError(f'{rule.said} cannot plug {rule.kind} into {name}, {_brief(old)}: {error}. '
                                    "unfit='skip' leaves such layers as they are") from error
                report.layers.append(Plugged(name, _brief(old), '', before, before, rule.start, str(error)))
                continue
        modules[name] = by_module[old]
        report.layers.append(Plugged(name, _brief(old), _brief(modules[name]), before, 0, rule.start))
    shared = [warehouse for warehouse in warehouses if warehouse.names]
    allocate(shared, model, modules)
    _count(report, modules, shared)
    if not dry_run:
        replace(model, modules)
        for name, grid in grids.items():
            model.get_submodule(name).register_forward_hook(grid)
        if shared:
            model.plugged_warehouses = nn.ModuleList([*getattr(model, 'plugged_warehouses', ()), *shared])
    return report


def _choose(model: nn.Module, rules: Sequence[Rule]) -> dict[str, Rule]:
    """The rule of each layer that gets an operator, by the names of the layers in the order of the model."""
    inside = {id(part) for module in model.modules() if isinstance(module, _PLUGGED) for part in module.modules()}
    attentions = attentions_of(model)
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if (isinstance(module, nn.Conv2d) or name in attentions) and id(module) not in inside and name}
    left, chosen = dict(layers), {}
    for rule in rules:
        meant = rule.keep_last([name for name, module in left.items() if rule.means(name, module)
                                and not (rule.kind == 'KWConv2d' and name in attentions)])
        if not meant:
            raise PlugError(f'{rule.said} means no convolution{" or attention" if attentions else ""}'
                            f'{_why(model, rule, layers, left)}')
        for name in meant:
            del left[name]
            if rule.to is not None:
                chosen[name] = rule
    for outer in chosen:
        inner = [name for name in chosen if name.startswith(f'{outer}.')]
        if inner and (outer in attentions or chosen[outer].start == 'scratch'):
            raise PlugError(f'{chosen[inner[0]].said} means {inner[0]}, which is a part of {outer}, '
                            f'{_brief(layers[outer])}, that {chosen[outer].said} means: exclude one of them')
    return {name: chosen[name] for name in layers if name in chosen}


def _why(model: nn.Module, rule: Rule, layers: Mapping[str, nn.Module], left: Mapping[str, nn.Module]) -> str:
    """Why a rule means nothing, as the end of a message."""
    if any(rule.means(name, module) for name, module in layers.items() if name not in left):
        return ' that an earlier rule has not taken'
    plain = Rule(rule.target, None, rule.exclude)
    others = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if name and plain.means(name, module)}
    if any(isinstance(module, _PLUGGED) for module in others.values()):
        return ' that is not plugged already: unplug the model first, or leave the rule out'
    if fitting := [name for name in others if name in layers]:
        return f': where={dict(rule.where)} leaves out {", ".join(fitting[:3])}, {_brief(layers[fitting[0]])}'
    if others:
        name, module = next(iter(others.items()))
        known = f', and attention that is known is {", ".join(ATTENTIONS)}, with the arguments of those of timm, ' \
                'torchvision and OpenMMLab' if re.search('atten|attn|msa', type(module).__name__, re.IGNORECASE) else ''
        return f': {name} is a {type(module).__name__}{known}'
    near = near_names(rule.target if isinstance(rule.target, str) else '', list(layers))
    return f'. {"Layers" if attentions_of(model) else "Convolutions"} of the model are, for example, {near}'


def _check(model: nn.Module, name: str, old: nn.Module, rule: Rule) -> None:
    """Raise a ValueError for a layer whose replacement would not train or would lose something."""
    if not any(parameter.requires_grad for parameter in old.parameters()):
        raise ValueError('it is frozen, and so would be what is plugged into it: let it train first, or exclude it')
    if rule.start == 'scratch':
        if any(part._forward_hooks or part._forward_pre_hooks or hasattr(part, 'parametrizations')
               for part in old.modules()):
            raise ValueError("it has hooks or parametrisations, which would be lost: take them off, or use "
                             "start='residual'")
        own = {id(parameter) for parameter in old.parameters()}
        parts = set(old.modules())
        others = [other for other, module in model.named_modules() if module not in parts and any(
            id(parameter) in own for parameter in module.parameters(recurse=False))]
        if others:
            raise ValueError(f"its weights are those of {others[0]}, too: use start='residual', which leaves them, or "
                             'exclude it')


def _sizes(model: nn.Module, chosen: Mapping[str, Rule],
           input_size: tuple[int, int] | None) -> tuple[Sizes, dict[str, str], dict[str, str]]:
    """Sizes of the maps that rules ask for, the convolutions that make those of the attentions' tokens, and why
    attentions cannot be plugged."""
    sizes: Sizes = {}
    sources: dict[str, str] = {}
    refused: dict[str, str] = {}
    if input_size:
        kinds = {name: kind_of(model.get_submodule(name)) for name in chosen}
        names = [name for name, rule in chosen.items() if any(rule.own.get(key) == 'auto' for key in AUTO)]
        if convs := [name for name in names if not kinds[name]]:
            sizes = map_sizes(model, convs, input_size)
        prefixes = {name: rule.own.get('prefix', prefix_of(model, name)) for name, rule in chosen.items()
                    if kinds[name] and 'grid' not in rule.own and (name in names or not kinds[name].sized)}
        if prefixes:
            maps, sources, refused = token_maps(model, prefixes, input_size)
            sizes |= maps
    return sizes, sources, refused


def _count(report: PlugReport, modules: Mapping[str, nn.Module], warehouses: Sequence[KernelWarehouse]) -> None:
    """Enter the parameters of what is there now; those that several layers have, with the first of them."""
    seen: set[int] = set()
    cells = defaultdict(list)
    for warehouse in warehouses:
        for index, weight in enumerate(warehouse.weights):
            cells[id(warehouse), index].append(weight)
    for layer in report.layers:
        if layer.reason:
            continue
        parameters = list(modules[layer.name].parameters())
        for part in modules[layer.name].modules():
            if isinstance(part, KWConv2d):
                parameters += cells[id(part.warehouse), part.warehouse_index]
        layer.after = sum(p.numel() for p in parameters if id(p) not in seen)
        seen |= {id(p) for p in parameters}


def _brief(module: nn.Module) -> str:
    """A layer in a few words."""
    if isinstance(module, Beside):
        return f'{type(module.base).__name__} + {_brief(module.new).split()[0]}'
    if isinstance(module, TokenMixer):
        return _brief(module.operator)
    sizes = 'x'.join(map(str, module.kernel_size)) if hasattr(module, 'kernel_size') and isinstance(
        module.kernel_size, tuple) else ''
    groups = getattr(module, 'groups', 1)
    said = [f'{module.in_channels} to {module.out_channels} channels'] if isinstance(module, nn.Conv2d) else []
    if isinstance(module, nn.Conv2d):
        said += [f'stride {"x".join(map(str, module.stride))}'] if max(module.stride) > 1 else []
        said += [f'dilation {"x".join(map(str, module.dilation))}'] if max(module.dilation) > 1 else []
        said += ['depthwise' if groups == module.in_channels else f'{groups} groups'] if groups > 1 else []
        return f'{type(module).__name__} {sizes} ({", ".join(said)})'
    return type(module).__name__
