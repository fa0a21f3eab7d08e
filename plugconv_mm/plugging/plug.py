"""Operators in the place of, or beside, the convolutions and the attention of a model that exists."""
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import nn

from plugconv_mm.errors import PlugError
from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.plugging.attention import ATTENTIONS, Grid, TokenMixer, attentions_of, kind_of, prefix_of
from plugconv_mm.plugging.blocks import BLOCKS
from plugconv_mm.plugging.convs import CONVS, KWConv2d
from plugconv_mm.plugging.dry_pass import Seen, dry_pass, macs_of
from plugconv_mm.plugging.embedding import embed
from plugconv_mm.plugging.making import make_of_attention, make_of_block, make_of_conv
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

    A rule whose operator is one of ``plugconv_mm.plugging.BLOCKS``, such as ``HorNetBlock``, means whole modules that
    give a map like the one that they get: residual blocks.

    Args:
        model: Any model whose layers are ``nn.Conv2d`` or its children, or attention, on any device, neither compiled
            nor quantised yet.
        rules: :class:`~plugconv_mm.plugging.rules.Rule` objects, or dicts with their arguments. ``'auto'`` as
            ``meta_size`` of ParC, and as
            ``filter_size`` or ``h`` and ``w`` of the global filter, stands for the size of the layer's map.
            ``dict(type='KWConv2d', share='stage', cell_num_ratio=…)`` lets the layers of each stage share a warehouse
            (``share='model'``: all layers of the rule; by default each has its own), with the arguments of
            :class:`plugconv_mm.ops.KernelWarehouse`. For attention whose calls do not give the size of the map, as
            in ViT, ``grid=(H, W)`` stands for `input_size` and fixes the size, and ``prefix`` is the number of tokens
            ahead of the map, where the model does not say it.
        input_size: H and W of the images for which ``'auto'``, the width of blocks, the convolution that makes the map
            of tokens, and the multiply-adds of the report are found.
        dry_run: Whether to say what would be done, and to leave the model as it is.

    Returns:
        What was plugged and what was skipped.

    Raises:
        PlugError: A rule that means no layer, or a layer that the operator cannot replace, that is plugged already,
            quantised or frozen; attention that is called with a mask or as cross-attention, or tokens that form no
            map; the model is as it was then.

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
    seen = _look(model, chosen, input_size)
    grids: dict[str, Grid] = {}
    warehouses = [make_warehouse(rule) for rule in made]
    by_module: dict[nn.Module, nn.Module] = {}
    report, modules = PlugReport(), {}
    for name, rule in chosen.items():
        old, what = model.get_submodule(name), seen.get(name, Seen())
        before = sum(p.numel() for p in old.parameters())
        layer = Plugged(name, _brief(old), '', before, before, rule.start)
        layer.macs_before = layer.macs_after = what.macs if name in seen else None
        report.layers.append(layer)
        if old not in by_module:
            try:
                _check(model, name, old, rule)
                if what.refused:
                    raise ValueError(what.refused)
                if rule.kind in BLOCKS:
                    new = make_of_block(old, rule, what)
                elif kind_of(old):
                    new = make_of_attention(model, name, rule, what, grids)
                else:
                    new = make_of_conv(old, name, rule, what, warehouses[made.index(rule)])
                if rule.start == 'embed' and rule.kind != 'KWConv2d':
                    layer.start += embed(new, old)
            except (ValueError, TypeError) as error:
                if rule.unfit == 'error':
                    raise PlugError(f'{rule.said} cannot plug {rule.kind} into {name}, {layer.old}: {error}. '
                                    "unfit='skip' leaves such layers as they are") from error
                layer.reason = str(error)
                continue
            by_module[old] = new
        modules[name] = by_module[old]
        layer.new = _brief(modules[name])
    shared = [warehouse for warehouse in warehouses if warehouse.names]
    allocate(shared, model, modules)
    for layer in report.layers:
        if layer.start == 'embed' and isinstance(modules.get(layer.name), KWConv2d):  # whose cells exist only now
            try:
                layer.start += embed(modules[layer.name], model.get_submodule(layer.name))
            except ValueError as error:
                raise PlugError(f'{chosen[layer.name].said} cannot embed {layer.name} in KWConv2d: {error}') from error
    _count(report, modules, shared, seen)
    if not dry_run:
        replace(model, modules)
        for name, grid in grids.items():
            model.get_submodule(name).register_forward_hook(grid)
    return report


def _choose(model: nn.Module, rules: Sequence[Rule]) -> dict[str, Rule]:
    """The rule of each layer that gets an operator, by the names of the layers in the order of the model."""
    inside = {id(part) for module in model.modules() if isinstance(module, _PLUGGED) for part in module.modules()}
    attentions = attentions_of(model)
    everything = {name: module for name, module in model.named_modules(remove_duplicate=False)
                  if name and id(module) not in inside}
    layers = {name: module for name, module in everything.items()
              if isinstance(module, nn.Conv2d) or name in attentions}
    taken: set[str] = set()
    chosen: dict[str, Rule] = {}
    for rule in rules:
        pool = everything if rule.to is None or rule.kind in BLOCKS else layers
        meant = rule.keep_last([name for name, module in pool.items() if name not in taken and rule.means(name, module)
                                and not (rule.kind == 'KWConv2d' and name in attentions)])
        if not meant:
            means = 'module' if pool is everything else f'convolution{" or attention" if attentions else ""}'
            raise PlugError(f'{rule.said} means no {means}{_why(model, rule, pool, taken)}')
        taken.update(meant)
        if rule.to is not None:
            chosen.update(dict.fromkeys(meant, rule))
    for outer in chosen:
        inner = [name for name in chosen if name.startswith(f'{outer}.')]
        of_conv = isinstance(everything[outer], nn.Conv2d) and chosen[outer].start == 'residual'  # keeps its parts
        if inner and not of_conv:
            raise PlugError(f'{chosen[inner[0]].said} means {inner[0]}, which is a part of {outer}, '
                            f'{_brief(everything[outer])}, that {chosen[outer].said} means: exclude one of them')
    return {name: chosen[name] for name in everything if name in chosen}


def _why(model: nn.Module, rule: Rule, layers: Mapping[str, nn.Module], taken: Set[str]) -> str:
    """Why a rule means nothing, as the end of a message."""
    if any(rule.means(name, layers[name]) for name in taken & layers.keys()):
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
        if 'quantized' in type(module).__module__:
            return f': {name} is a quantised {type(module).__name__}: plug the operators in before quantisation'
        known = f', and attention that is known is {", ".join(ATTENTIONS)}, with the arguments of those of timm, ' \
                'torchvision and OpenMMLab' if re.search('atten|attn|msa', type(module).__name__, re.IGNORECASE) else ''
        return f': {name} is a {type(module).__name__}{known}'
    near = near_names(rule.target if isinstance(rule.target, str) else '', list(layers))
    return f'. {"Layers" if attentions_of(model) else "Convolutions"} of the model are, for example, {near}'


def _check(model: nn.Module, name: str, old: nn.Module, rule: Rule) -> None:
    """Raise a ValueError for a layer whose replacement would not train or would lose something."""
    if not any(parameter.requires_grad for parameter in old.parameters()):
        raise ValueError('it is frozen, and so would be what is plugged into it: let it train first, or exclude it')
    if any(hasattr(part, 'weight_fake_quant') for part in old.modules()):
        raise ValueError('it is prepared for quantisation: plug the operators in before')
    if rule.start != 'residual':
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


def _look(model: nn.Module, chosen: Mapping[str, Rule], input_size: tuple[int, int] | None) -> dict[str, Seen]:
    """What a pass shows of the layers, if the size of an image is known."""
    if not input_size:
        return {}
    kinds = {name: kind_of(model.get_submodule(name)) for name in chosen if chosen[name].kind not in BLOCKS}
    prefixes = {name: chosen[name].own.get('prefix', prefix_of(model, name)) for name, kind in kinds.items() if kind}
    needed = any(rule.unfit == 'error' and (
        'auto' in rule.own.values() or rule.kind in BLOCKS
        or kinds[name] and not kinds[name].sized and 'grid' not in rule.own) for name, rule in chosen.items())
    return dry_pass(model, chosen, prefixes, input_size, needed)


def _count(report: PlugReport, modules: Mapping[str, nn.Module], warehouses: Sequence[KernelWarehouse],
           seen: Mapping[str, Seen]) -> None:
    """Enter the costs of what is there now; parameters that several layers have, with the first of them."""
    counted: set[int] = set()
    cells = {id(weight) for warehouse in warehouses for weight in warehouse.weights}
    for layer in report.layers:
        if layer.reason:
            continue
        module = modules[layer.name]
        parameters = [p for p in module.parameters() if id(p) not in cells]
        parameters += [part.warehouse.weights[part.warehouse_index] for part in module.modules()
                       if isinstance(part, KWConv2d)]
        layer.after = sum(p.numel() for p in parameters if id(p) not in counted)
        counted |= {id(p) for p in parameters}
        new = module.new if isinstance(module, Beside) else module
        what = seen.get(layer.name, Seen())
        if what.sizes and layer.macs_before is not None:
            macs = macs_of(new.operator if isinstance(new, TokenMixer) else new, what.channels, what.sizes)
            layer.macs_after = macs + (layer.macs_before if new is not module else 0)


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
