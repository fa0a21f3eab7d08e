"""Layers inside operators that are wrapped, replaced, overridden, parametrised or hooked take part as they are.

Outputs multiplied by a factor from outside have to be those of a plain layer whose weight and bias are multiplied.
"""
import copy
import warnings

import pytest
import torch
from joined_layers import ConvBN, ResidualMLP
from torch import nn
from torch.nn.utils import parametrize

from plugconv_mm.ops import (
    HMHSA,
    DecomposedLargeKernelConv2d,
    GlobalLocalFilter,
    GnConv2d,
    KernelWarehouse,
    KWConv2d,
    KWLinear,
    LargeKernelConv2d,
    ParCHW2d,
    switch_to_deploy,
)

FACTOR = 1.5
MAP = 3, 8, 9, 7


class Basis(nn.Module):
    """A convolution whose attention has all of its three layers."""

    def __init__(self):
        super().__init__()
        self.warehouse = KernelWarehouse(cell_num_ratio=2, nonlocal_basis_ratio=0.5, sharing_range=('conv', ))
        self.conv = KWConv2d(8, 8, 3, padding=1, warehouse=self.warehouse, name='conv0')
        self.other = KWConv2d(8, 8, 3, warehouse=self.warehouse, name='conv1')
        self.warehouse.allocate(self)

    def forward(self, x):
        return self.conv(x)


class OnLastAxis(nn.Module):

    def __init__(self):
        super().__init__()
        self.linear = KWLinear(7, 6)

    def forward(self, x):
        return self.linear(x)


def deployed(kernel_size):
    module = DecomposedLargeKernelConv2d(8, kernel_size)
    switch_to_deploy(module)
    return module


LARGE = [f'{branch}.{layer}' for branch in ('vertical', 'horizontal', 'small_conv') for layer in ('conv', 'bn')]
WHOLE = [f'{branch}.{layer}' for branch in ('large_conv', 'small_conv') for layer in ('conv', 'bn')]
ATTENTION = ['attention.fc1', 'attention.norm1', 'attention.fc2']
# operator: how to make it, its layers with weights, its other layers
OPERATORS = {
    'residual_mlp': (ResidualMLP, ['norm', 'fc1', 'fc2'], ['drop_path']),
    'conv_bn': (lambda: ConvBN(nn.Conv2d(8, 8, 3, padding=1)), ['conv', 'norm'], []),
    'conv_bn-KWConv2d': (lambda: ConvBN(KWConv2d(8, 8, 3)), ['norm'], ['conv']),
    'GnConv2d-7x7': (lambda: GnConv2d(8, order=3, scale=0.5), ['proj_in', 'dwconv', 'pws.0', 'pws.1', 'proj_out'], []),
    'GnConv2d-gf': (lambda: GnConv2d(8, scale=0.5, filter='gf'), ['proj_in', 'pws.0', 'proj_out', 'dwconv.post_norm'],
                    ['dwconv']),
    'GnConv2d-k21': (lambda: GnConv2d(8, scale=0.5, filter='k21'), ['proj_in', 'dwconv', 'pws.0', 'proj_out'], []),
    'GnConv2d-parc': (lambda: GnConv2d(8, scale=0.5, filter=dict(type='ParCHW2d', meta_size=5)),
                      ['proj_in', 'pws.0', 'proj_out'], ['dwconv', 'dwconv.parc_h']),
    'GlobalLocalFilter': (lambda: GlobalLocalFilter(8), ['pre_norm', 'dw', 'post_norm'], []),
    'ParCHW2d': (lambda: ParCHW2d(8, 7, position_embedding=False), ['parc_h', 'parc_w'], []),
    'HMHSA-windows': (lambda: HMHSA(8, 4, 2, head_width=4),
                      ['norm', 'grid_norm', 'ds_norm', 'qkv', 'q', 'kv', 'proj'], []),
    'HMHSA-plain': (lambda: HMHSA(8, 1, 1, head_width=4), ['norm', 'qkv', 'proj'], []),
    'DecomposedLargeKernelConv2d-7': (lambda: DecomposedLargeKernelConv2d(8, 7), LARGE,
                                      ['vertical', 'horizontal', 'small_conv']),
    'DecomposedLargeKernelConv2d-31': (lambda: DecomposedLargeKernelConv2d(8, 31), LARGE,
                                       ['vertical', 'horizontal', 'small_conv']),
    'LargeKernelConv2d-31': (lambda: LargeKernelConv2d(8, 31), WHOLE, ['large_conv', 'small_conv']),
    'deployed-7': (lambda: deployed(7), ['vertical', 'horizontal'], []),
    'deployed-31': (lambda: deployed(31), ['vertical', 'horizontal'], []),
    'KWConv2d': (lambda: KWConv2d(8, 8, 3), ATTENTION, ['attention']),
    'KWConv2d-basis': (Basis, [f'conv.{name}' for name in (*ATTENTION, 'attention.fc3')], ['conv.attention']),
    'KWLinear': (OnLastAxis, [f'linear.{name}' for name in ATTENTION], ['linear', 'linear.attention']),
}
LAYERS = [(name, layer) for name, (_, layers, _) in OPERATORS.items() for layer in layers]
ALL_LAYERS = [(name, layer) for name, (_, *kinds) in OPERATORS.items() for layers in kinds for layer in layers]
# training; whether there are gradients
MODES = [(True, True), (False, True), (False, False)]


def make(name):
    """An operator in which nothing is zero or one."""
    generator = torch.Generator().manual_seed(0)
    module = OPERATORS[name][0]()
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
            if key.endswith('running_var'):
                value.abs_().add_(0.5)
    return module.double()


def run(module, batch=3):
    x = torch.randn(batch, *MAP[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return module(x.requires_grad_(torch.is_grad_enabled()))


def replace(module, layer, wrap):
    parent, _, name = layer.rpartition('.')
    parent = module.get_submodule(parent)
    setattr(parent, name, wrap(getattr(parent, name)))


class Adapter(nn.Module):
    """A layer behind another, as adapters have them; it shows nothing of what is behind."""

    def __init__(self, layer, factor):
        super().__init__()
        self.layer, self.factor, self.calls = layer, factor, 0

    def forward(self, *args):
        self.calls += 1
        return self.layer(*args) * self.factor


class Times(nn.Module):

    def forward(self, x):
        return x * FACTOR


def adapter(module, layer):
    replace(module, layer, lambda base: Adapter(base, FACTOR))


def subclass(module, layer):
    def of_subclass(base):
        kind = type(base)
        base.__class__ = type('Other', (kind, ), {'forward': lambda self, *args: kind.forward(self, *args) * FACTOR})
        return base
    replace(module, layer, of_subclass)


def override(module, layer):
    base = module.get_submodule(layer)
    forward = base.forward
    base.forward = lambda *args: forward(*args) * FACTOR


def hook(module, layer):
    module.get_submodule(layer).register_forward_hook(lambda module, args, y: y * FACTOR)


def global_hook(module, layer):
    target = module.get_submodule(layer)
    module.handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, y: y * FACTOR if module is target else None)


def parametrisation(module, layer):
    for name in ('weight', 'bias'):
        if getattr(module.get_submodule(layer), name) is not None:
            parametrize.register_parametrization(module.get_submodule(layer), name, Times())


CHANGES = [adapter, subclass, override, hook, global_hook, parametrisation]


@pytest.mark.parametrize('change', CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize('name, layer', LAYERS)
def test_what_is_done_to_a_layer_counts(name, layer, change):
    plain, changed, untouched = make(name), make(name), make(name)
    with torch.no_grad():
        for parameter in plain.get_submodule(layer).parameters():
            parameter *= FACTOR
    change(changed, layer)
    try:
        for training, gradients in MODES:
            with torch.set_grad_enabled(gradients):
                got, want, other = (run(module.train(training)) for module in (changed, plain, untouched))
            torch.testing.assert_close(got, want)
            # A batch norm in training undoes a factor before it.
            assert training or not torch.allclose(got, other, rtol=1e-6)
    finally:
        if hasattr(changed, 'handle'):
            changed.handle.remove()


@pytest.mark.parametrize('name, layer', ALL_LAYERS)
def test_a_layer_is_called_once(name, layer):
    """With hooks of each kind, and through an adapter; the result stays."""
    for training, gradients in MODES:
        want = run(make(name).train(training))
        module, seen = make(name).train(training), []
        target = module.get_submodule(layer)
        target.register_forward_pre_hook(lambda *args, seen=seen: seen.append('pre'))
        target.register_forward_hook(lambda *args, seen=seen: seen.append('forward'))
        target.register_full_backward_hook(lambda *args, seen=seen: seen.append('backward'))
        with torch.set_grad_enabled(gradients):
            y = run(module)
        torch.testing.assert_close(y, want)
        if gradients:
            y.square().sum().backward()
        assert seen == ['pre', 'forward', 'backward'][:2 + gradients]

        module = make(name).train(training)
        replace(module, layer, lambda base: Adapter(base, 1))
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(run(module), want)
        assert module.get_submodule(layer).calls == 1


@pytest.mark.parametrize('name', OPERATORS)
def test_all_layers_behind_adapters(name):
    module, want = make(name).eval(), run(make(name).eval())
    for _, layer in filter(lambda pair: pair[0] == name, LAYERS):
        replace(module, layer, lambda base: Adapter(base, 1))
    with torch.no_grad():
        torch.testing.assert_close(run(module), want)


@pytest.mark.parametrize('change', CHANGES[1:], ids=lambda change: change.__name__)
def test_one_sample_in_training(change):
    """The running statistics normalise it, through whatever is around the batch norm of the attention."""
    module = make('KWConv2d').train()
    want = make('KWConv2d')
    with torch.no_grad():
        for parameter in want.attention.norm1.parameters():
            parameter *= FACTOR
    change(module, 'attention.norm1')
    try:
        torch.testing.assert_close(run(module, batch=1), run(want.eval(), batch=1))
    finally:
        if hasattr(module, 'handle'):
            module.handle.remove()
    assert module.attention.norm1.training


@pytest.mark.parametrize('name', ['residual_mlp', 'KWConv2d', 'KWConv2d-basis', 'KWLinear'])
@pytest.mark.parametrize('gradients', [True, False])
def test_dynamic_quantisation(name, gradients):
    module = make(name).float().eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {nn.Linear}, torch.qint8)
    assert not any(type(m) is nn.Linear for m in quantised.modules())
    x = torch.randn(MAP, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(gradients):
        want, got = module(x), quantised(x)
    assert not torch.equal(got, want)
    assert (got - want).std() < 0.05 * want.std()


class Quantised(torch.Tensor):
    """A weight of a tensor subclass that knows nothing but to take part in its layer's own function."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)

    def __init__(self, values):
        self.values = values

    def __tensor_flatten__(self):
        return ['values'], None

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (nn.functional.linear, nn.functional.conv2d):
            return function(*(a.values if isinstance(a, cls) else a for a in args), **(kwargs or {}))
        return super().__torch_function__(function, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].values)
        raise NotImplementedError(function)


@pytest.mark.parametrize('name, layer', [
    (name, layer) for name, layer in LAYERS if isinstance(make(name).get_submodule(layer), nn.Linear | nn.Conv2d)])
def test_weights_of_a_tensor_subclass(name, layer):
    module = make(name).eval()
    want = run(module)
    child = module.get_submodule(layer)
    child.weight = nn.Parameter(Quantised(child.weight.detach()), requires_grad=False)
    with torch.no_grad():
        torch.testing.assert_close(run(module), want)


def test_padding_of_other_modes():
    module = ConvBN(nn.Conv2d(8, 8, 3, padding=1, padding_mode='circular')).eval()
    x = torch.rand(MAP)
    torch.testing.assert_close(module(x), module.norm(module.conv(x)))


def test_large_kernels_that_are_not_plain_are_not_deployed():
    module = DecomposedLargeKernelConv2d(8, 31)
    with torch.no_grad():
        state = copy.deepcopy(module.state_dict())
        replace(module, 'horizontal.conv', lambda base: Adapter(base, FACTOR))
        with pytest.raises(ValueError, match='only plain convolutions can be folded: merge or remove'):
            switch_to_deploy(module)
        module = DecomposedLargeKernelConv2d(8, 31)
        module.load_state_dict(state)
        handle = module.small_conv.bn.register_forward_hook(lambda *args: None)
        with pytest.raises(ValueError, match='only a plain BatchNorm can be folded'):
            switch_to_deploy(module)
        handle.remove()
        switch_to_deploy(module)
        assert module.deployed


@pytest.mark.parametrize('kernel_size', [7, 31])
def test_convolutions_that_took_their_batch_norm_in(kernel_size):
    """Biased, as mmcv's fuse_conv_bn leaves them."""
    module = make(f'DecomposedLargeKernelConv2d-{kernel_size}').eval()
    want = run(module)
    for branch in module.children():
        branch.conv = nn.utils.fuse_conv_bn_eval(branch.conv, branch.bn)
        branch.bn = nn.Identity()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(run(module), want)
