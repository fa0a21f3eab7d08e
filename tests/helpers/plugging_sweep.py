"""What each operator has to keep, and has to give, when it is plugged into a network of another library."""
import copy
import re

import torch
from mmengine.structures import BaseDataElement
from torch import nn

from plugconv_mm.ops import KernelWarehouse
from plugconv_mm.plugging import plug, unplug
from plugconv_mm.plugging.attention import attentions_of
from plugconv_mm.plugging.plugged import Beside
from plugconv_mm.plugging.rules import Rule


def keeps_width(name, layer):
    return getattr(layer, 'in_channels', 0) == getattr(layer, 'out_channels', 1)


def is_attention(name, layer):
    """That of DETR's encoders and of heads is refused: its calls have position encodings, masks, or other queries."""
    return not isinstance(layer, nn.Conv2d) and not re.match(r'(encoder|decoder|\w*head)\.', name)


# The last layers of each stage, which show as much as all of them; of the shared warehouses the last two.
_DEPTHWISE = dict(type='Conv2d', stride=1, groups='depthwise', last=1)
RULES = {
    'ParCHW2d': dict(target=keeps_width, where=dict(type='Conv2d', stride=1, last=1),
                     to=dict(type='ParCHW2d', meta_size='auto')),
    'GnConv2d': dict(target='re:.*', where=dict(type='Conv2d', stride=1, groups=1, last=1), to=dict(type='GnConv2d')),
    'GlobalLocalFilter': dict(target=keeps_width, where=_DEPTHWISE,
                              to=dict(type='GlobalLocalFilter', h='auto', w='auto')),
    'DecomposedLargeKernelConv2d': dict(target=keeps_width, where=_DEPTHWISE,
                                        to=dict(type='DecomposedLargeKernelConv2d', large_kernel=13)),
    'LargeKernelConv2d': dict(target=keeps_width, where=_DEPTHWISE, to=dict(type='LargeKernelConv2d', large_kernel=7)),
    'KWConv2d': dict(target='re:.*', where=dict(type='Conv2d', last=1), to=dict(type='KWConv2d')),
    'KWConv2d, shared': dict(target=keeps_width, where=dict(type='Conv2d', kernel_size=3, groups=1, last=2),
                             to=dict(type='KWConv2d', share='stage')),
    'ParCMixer': dict(target=is_attention, where=dict(last=1), to=dict(type='ParCMixer', meta_size='auto')),
}


def take_statistics(model, loss):
    """Let batch norms have the statistics of a batch."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.
    model.train()
    with torch.no_grad():
        loss(model)
    for norm in norms:
        norm.momentum = 0.1


def tensors_in(found):
    """The tensors of what a model returns, in their order."""
    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, BaseDataElement):
        return tensors_in([value for _, value in sorted(found.all_items())])
    if isinstance(found, dict):
        return tensors_in([found[key] for key in sorted(found)])
    return sum(map(tensors_in, found), []) if isinstance(found, (list, tuple)) else []


def check(model, outputs, loss, input_size, record, statistics=False, gamma=1e-4):
    """Plug one operator after the other into copies of a model.

    Args:
        model: The model.
        outputs: A function of the model that gives what it computes.
        loss: A function of the model that gives a number for a backward pass.
        input_size: H and W of the images.
        record: A function of the operator's name and of how many layers were plugged.
        statistics: Whether batch norms first take the statistics of a batch, without which some overflow.
        gamma: Factor of the operators in the backward pass; products of several gnConvs, and of random weights,
            overflow at more.
    """

    def computed(network):
        torch.manual_seed(0)
        network.eval()  # which returns nothing in mmdet's distillation
        with torch.no_grad():
            return tensors_in(outputs(network))

    for parameter in model.parameters():
        if not parameter.any():  # as at the ends of branches, on which nothing would depend
            nn.init.normal_(parameter, 0, 0.1)
    if statistics:
        take_statistics(model, loss)
    before = computed(model)
    assert before and all(torch.isfinite(out).all() for out in before if out.is_floating_point())
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    layers |= attentions_of(model)
    total = 0
    for label, rule in RULES.items():
        if not any(Rule(**rule).means(name, module) for name, module in layers.items()):
            continue
        changed = copy.deepcopy(model)
        report = plug(changed, [dict(rule, start='residual', unfit='skip')], input_size)
        names, skipped = report.plugged, {layer.name: layer.reason for layer in report.layers if layer.reason}
        if sizeless := [name for name, reason in skipped.items() if "='auto'" in reason]:
            sizes = {key: 7 if value == 'auto' else value for key, value in rule['to'].items()}
            again = plug(changed, [dict(target=lambda name, _, wanted=sizeless: name in wanted, to=sizes,
                                        start='residual', unfit='skip')], input_size)
            names += again.plugged
            skipped = {name: reason for name, reason in skipped.items() if name not in sizeless}
            skipped |= {layer.name: layer.reason for layer in again.layers if layer.reason}
        record(label, len(names))
        for name, reason in skipped.items():
            record('skipped', f'{label}: {name}: {reason}')
        total += len(names)
        if names:
            _check_one(model, changed, names, lambda network: _same(computed(network), before), loss, gamma, label,
                       record)
    assert total, 'no operator was plugged into any layer'


def _same(found, before):
    return len(found) == len(before) and all(map(torch.equal, found, before))


def _check_one(model, changed, names, is_as_before, loss, gamma, label, record):
    copied = copy.deepcopy(changed)
    assert is_as_before(copied), f'{label}: the outputs are not what they were'
    found = copied.load_state_dict(model.state_dict(), strict=False)
    assert not found.unexpected_keys, (label, found.unexpected_keys)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    copied.load_state_dict(changed.state_dict())
    assert _same(list(copied.state_dict().values()), list(changed.state_dict().values())), label
    assert sorted(unplug(copied)) == sorted(names), label
    assert copied.state_dict().keys() == model.state_dict().keys(), label
    assert not any(isinstance(module, Beside) for module in copied.modules()), label
    unused = assert_trains(changed, names, loss, gamma, label)
    if unused:
        record('unused', f'{label}: {", ".join(unused)}')
    assert len(unused) < len(names), f'{label}: nothing of it is used'


def assert_trains(model, names, loss, gamma, label):
    """All that is new has gradients once gamma has changed, as far as the layer beside it has any.

    Returns:
        The layers that the loss does not depend on.
    """
    own = set()
    for name in names:
        layer = model.get_submodule(name)
        nn.init.constant_(layer.gamma, gamma)
        own |= {id(parameter) for parameter in layer.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in own:
            parameter.requires_grad_(False)  # its gradients are not looked at, and take time
    model.train()
    torch.manual_seed(0)
    loss(model).backward()
    unused = [name for name in names if all(
        p.grad is None for p in model.get_submodule(name).base.parameters() if p.requires_grad)]
    for name in set(names) - set(unused):
        layer = model.get_submodule(name)
        new = {key: p for key, p in layer.new.named_parameters() if not key.startswith('own_warehouse.')}
        new['gamma'] = layer.gamma
        without = [key for key, p in new.items() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert not without, (label, name, without)
    for warehouse in model.modules():
        if isinstance(warehouse, KernelWarehouse) and not unused:
            assert all(cells.grad is not None for cells in warehouse.weights), label
    return unused
