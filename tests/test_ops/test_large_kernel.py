"""The decomposed large kernel against convolutions written out, and its deployed form against itself."""
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from random_state import randomise_state
from torch import nn

from plugconv_mm.ops import DecomposedLargeKernelConv2d


def by_definition(module, x):
    """Each branch with its normalisation, summed; plain loops over the offsets of the kernels."""
    total = 0
    for branch in (module.vertical, module.horizontal, module.small_conv):
        if branch is None:
            continue
        weight, bn = branch.conv.weight, branch.bn
        kh, kw = weight.shape[2:]
        padded = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))
        y = sum(weight[:, 0, i, j, None, None] * padded[:, :, i:i + x.shape[2], j:j + x.shape[3]]
                for i in range(kh) for j in range(kw))
        if bn.training:
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        else:
            mean, var = bn.running_mean, bn.running_var
        y = (y - mean[:, None, None]) / (var[:, None, None] + bn.eps).sqrt()
        total = total + y * bn.weight[:, None, None] + bn.bias[:, None, None]
    return total


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kernel_size, small_kernel', [(13, 5), (9, 3), (5, 5)])
def test_definition(kernel_size, small_kernel, training):
    module = randomise_state(DecomposedLargeKernelConv2d(6, kernel_size, small_kernel)).double().train(training)
    assert (module.small_conv is None) == (kernel_size == small_kernel)
    x = torch.randn(2, 6, 11, 17, dtype=torch.float64)
    torch.testing.assert_close(module(x), by_definition(module, x))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kernel_size, size', [(7, (5, 6)), (51, (5, 6)), (21, (70, 3)), (23, (4, 150)), (31, (1, 1))])
def test_gradients(kernel_size, size, training):
    """Kernels shorter and longer than the map, and maps of more columns than go into one product."""
    module = randomise_state(DecomposedLargeKernelConv2d(3, kernel_size, 3)).double().train(training)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    parameters = [x, *module.parameters()]
    coefficients = torch.randn(2, 3, *size, dtype=torch.float64)
    got = torch.autograd.grad((module(x) * coefficients).sum(), parameters)
    want = torch.autograd.grad((by_definition(module, x) * coefficients).sum(), parameters)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_gradients_of_gradients():
    module = randomise_state(DecomposedLargeKernelConv2d(2, 21, 3)).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, _: module(x), (x, module.vertical.conv.weight))


def test_frozen_kernels():
    module = randomise_state(DecomposedLargeKernelConv2d(2, 21, 3)).requires_grad_(False)
    x = torch.randn(2, 2, 8, 8, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None and module.vertical.conv.weight.grad is None


@pytest.mark.parametrize('kernel_size', [51, 13, 5])
def test_deployed_form(kernel_size):
    module = randomise_state(DecomposedLargeKernelConv2d(8, kernel_size)).eval()
    x = torch.randn(2, 8, 30, 60)
    want = by_definition(module, x)
    deployed = copy.deepcopy(module)
    deployed.switch_to_deploy()
    deployed.switch_to_deploy()  # nothing left to do
    assert deployed.deployed and not module.deployed
    torch.testing.assert_close(deployed(x), want, atol=1e-4, rtol=0)
    torch.testing.assert_close(deployed.train()(x), want, atol=1e-4, rtol=0)
    assert {k: tuple(v.shape) for k, v in deployed.state_dict().items()} == {
        'vertical.weight': (8, 1, kernel_size, 5), 'vertical.bias': (8, ),
        'horizontal.weight': (8, 1, 5, kernel_size), 'horizontal.bias': (8, )}
    torch.testing.assert_close(pickle.loads(pickle.dumps(deployed))(x), deployed(x))


def test_layouts_agree():
    module = randomise_state(DecomposedLargeKernelConv2d(8, 13)).eval()
    x = torch.randn(2, 8, 15, 20)
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='kernel_size must be odd'):
        DecomposedLargeKernelConv2d(8, 12)
    with pytest.raises(ValueError, match='small_kernel must be odd'):
        DecomposedLargeKernelConv2d(8, 13, small_kernel=4)
    module = DecomposedLargeKernelConv2d(8, 13, norm_layer=lambda c: nn.GroupNorm(2, c))
    assert module(torch.rand(1, 8, 9, 9)).shape == (1, 8, 9, 9)
    with pytest.raises(ValueError, match='GroupNorm'):
        module.switch_to_deploy()
    with pytest.raises(ValueError, match=r'expected \(N, 8, H, W\), got \(1, 4, 9, 9\)'):
        module(torch.rand(1, 4, 9, 9))
