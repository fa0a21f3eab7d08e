"""What passes for a plain layer, and what does not."""
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from plugconv_mm.ops.mechanisms.plain_layer import is_plain


class Named(nn.Linear):
    """A subclass that changes nothing."""


class Other(nn.Linear):

    def forward(self, x):
        return super().forward(x) * 2


class Wrapper(nn.Module):

    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize('layer, kinds', [
    (nn.Linear(3, 4), (nn.Linear, )), (nn.Linear(3, 4, bias=False), (nn.Conv2d, nn.Linear)),
    (Named(3, 4), (nn.Linear, )), (nn.Conv2d(3, 4, 1), (nn.Conv2d, )), (nn.LayerNorm(3), (nn.LayerNorm, )),
    (nn.BatchNorm1d(3), (_BatchNorm, )), (nn.BatchNorm2d(3, affine=False), (_BatchNorm, )),
    (nn.Sequential(nn.ReLU()), (nn.Sequential, )), (Other(3, 4), (Other, ))])
def test_plain(layer, kinds):
    assert is_plain(layer, *kinds)
    assert is_plain(layer.double().eval().requires_grad_(False), *kinds)


@pytest.mark.parametrize('layer, kinds', [
    (nn.Linear(3, 4), (nn.Conv2d, )), (nn.Linear(3, 4), ()), (Other(3, 4), (nn.Linear, )),
    (Wrapper(nn.Linear(3, 4)), (nn.Linear, )), (nn.Conv1d(3, 4, 1), (nn.Conv2d, )), (nn.Identity(), (nn.LayerNorm, )),
    (nn.SyncBatchNorm(3), (_BatchNorm, ))])
def test_another_class(layer, kinds):
    assert not is_plain(layer, *kinds)


@pytest.mark.parametrize('register', [
    'register_forward_hook', 'register_forward_pre_hook', 'register_full_backward_hook',
    'register_full_backward_pre_hook'])
def test_hooks(register):
    layer = nn.Linear(3, 4)
    handle = getattr(layer, register)(lambda *args: None)
    assert not is_plain(layer, nn.Linear)
    handle.remove()
    assert is_plain(layer, nn.Linear)
    handle = getattr(nn.modules.module, register.replace('register_', 'register_module_'))(lambda *args: None)
    assert not is_plain(layer, nn.Linear)
    handle.remove()
    assert is_plain(layer, nn.Linear)


def test_weights_that_are_computed():
    def halves():
        layer = nn.Linear(3, 4)
        parametrize.register_parametrization(layer, 'weight', nn.Tanh())
        return layer

    layers = [halves(), parametrizations.weight_norm(nn.Linear(3, 4)), parametrizations.orthogonal(nn.Linear(3, 4)),
              prune.l1_unstructured(nn.Linear(3, 4), 'weight', 0.5)]
    with pytest.warns(FutureWarning):
        layers.append(weight_norm(nn.Linear(3, 4)))
    for layer in layers:
        assert not is_plain(layer, nn.Linear, type(layer))
    parametrize.remove_parametrizations(layers[0], 'weight')
    assert is_plain(layers[0], nn.Linear)


def test_a_forward_of_the_instance():
    layer = nn.Linear(3, 4)
    layer.forward = lambda x: x
    assert not is_plain(layer, nn.Linear)


def test_functional_calls_and_meta_tensors_are_plain():
    layer, seen = nn.Linear(3, 4), []
    net = nn.Sequential(layer)
    net.forward = lambda x: seen.append(is_plain(layer, nn.Linear)) or layer(x)
    torch.func.functional_call(net, {'0.weight': torch.rand(4, 3)}, (torch.rand(2, 3), ))
    torch.func.grad(lambda w: torch.func.functional_call(net, {'0.weight': w}, (torch.rand(2, 3), )).sum())(
        torch.rand(4, 3))
    assert seen == [True, True]
    assert is_plain(nn.Linear(3, 4, device='meta'), nn.Linear)


def test_compiled_and_exported_graphs_take_the_fast_path():
    class Doubled(nn.Module):

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4, bias=False)

        def forward(self, x):
            if is_plain(self.layer, nn.Linear):
                return nn.functional.linear(x, self.layer.weight * 2)
            return self.layer(x)

    module, x = Doubled(), torch.rand(2, 3)
    want = module.layer(x) * 2
    torch.testing.assert_close(torch.export.export(module, (x, )).module()(x), want)
    torch.testing.assert_close(torch.compile(module, backend='eager', fullgraph=True)(x), want)
