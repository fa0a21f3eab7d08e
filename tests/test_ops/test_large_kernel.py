"""Large kernels, decomposed and whole, against convolutions written out, and deployed against themselves."""
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from random_state import randomise_state
from torch import nn

from plugconv_mm.errors import CheckpointError
from plugconv_mm.ops import DecomposedLargeKernelConv2d, LargeKernelConv2d, deploy_state_dict

KINDS = [DecomposedLargeKernelConv2d, LargeKernelConv2d]


def by_definition(module, x):
    """Each branch with its normalisation, summed; plain loops over the offsets of the kernels."""
    total = 0
    for branch in (*(getattr(module, name) for name in module.large), module.small_conv):
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
@pytest.mark.parametrize('kind', KINDS)
def test_definition(kind, kernel_size, small_kernel, training):
    module = randomise_state(kind(6, kernel_size, small_kernel)).double().train(training)
    assert (module.small_conv is None) == (kernel_size == small_kernel)
    x = torch.randn(2, 6, 11, 17, dtype=torch.float64)
    torch.testing.assert_close(module(x), by_definition(module, x))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kernel_size, size', [(7, (5, 6)), (51, (5, 6)), (21, (70, 3)), (23, (4, 150)), (31, (1, 1))])
@pytest.mark.parametrize('kind', KINDS)
def test_gradients(kind, kernel_size, size, training):
    """Kernels shorter and longer than the map, and maps of more columns than go into one product."""
    module = randomise_state(kind(3, kernel_size, 3)).double().train(training)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    parameters = [x, *module.parameters()]
    coefficients = torch.randn(2, 3, *size, dtype=torch.float64)
    got = torch.autograd.grad((module(x) * coefficients).sum(), parameters)
    want = torch.autograd.grad((by_definition(module, x) * coefficients).sum(), parameters)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_of_gradients(kind):
    module = randomise_state(kind(2, 21, 3)).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, _: module(x), (x, getattr(module, module.large[0]).conv.weight),
                                        fast_mode=True)


@pytest.mark.parametrize('kind', KINDS)
def test_frozen_kernels(kind):
    module = randomise_state(kind(2, 21, 3)).requires_grad_(False)
    x = torch.randn(2, 2, 8, 8, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None and getattr(module, module.large[0]).conv.weight.grad is None


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


@pytest.mark.parametrize('small_kernel', [5, 3, None])
@pytest.mark.parametrize('kernel_size', [61, 31, 7])
def test_deployed_form_of_a_whole_kernel(kernel_size, small_kernel):
    module = randomise_state(LargeKernelConv2d(8, kernel_size, small_kernel)).eval()
    assert (module.small_conv is None) == (small_kernel is None)
    x = torch.randn(2, 8, 14, 14)
    want, state = by_definition(module, x), deploy_state_dict(module.state_dict())
    torch.testing.assert_close(module(x), want, atol=1e-4, rtol=1e-4)
    module.switch_to_deploy()
    torch.testing.assert_close(module.train()(x), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module.state_dict(), state)
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        'large_conv.weight': (8, 1, kernel_size, kernel_size), 'large_conv.bias': (8, )}


@pytest.mark.parametrize('size', [(14, 14), (3, 20), (1, 1)])
@pytest.mark.parametrize('training', [True, False])
def test_a_whole_kernel_is_a_plain_convolution(size, training):
    """Of 61x61, on maps that it covers from every position."""
    module = randomise_state(LargeKernelConv2d(8, 61)).double().train(training)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    want = sum(branch.bn(F.conv2d(x, branch.conv.weight, padding=branch.conv.kernel_size[0] // 2, groups=8))
               for branch in (module.large_conv, module.small_conv))
    torch.testing.assert_close(module(x), want)


def test_a_small_kernel_that_is_not_smaller_is_none():
    assert list(LargeKernelConv2d(8, 7, 100).state_dict()) == list(LargeKernelConv2d(8, 7, None).state_dict())


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('deployed', [True, False])
@pytest.mark.parametrize('kind, other, advice', [(*KINDS, 'build the backbone with decomposed=False'),
                                                 (*KINDS[::-1], 'build the backbone with decomposed=True')])
def test_weights_of_the_other_kind_are_refused(kind, other, advice, deployed, strict):
    state = other(4, 9).state_dict()
    with pytest.raises(CheckpointError, match=f"weights of the large kernel '' are (whole|decomposed) .*: {advice}"):
        kind(4, 9).load_state_dict(deploy_state_dict(state) if deployed else state, strict=strict)


@pytest.mark.parametrize('kind', KINDS)
def test_layouts_agree(kind):
    module = randomise_state(kind(8, 13)).eval()
    x = torch.randn(2, 8, 15, 20)
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))


@pytest.mark.parametrize('kind', KINDS)
def test_what_does_not_fit_is_refused(kind):
    with pytest.raises(ValueError, match='kernel_size must be odd and positive, .* got 12'):
        kind(8, 12)
    with pytest.raises(ValueError, match='small_kernel must be odd and positive, .* got 4'):
        kind(8, 13, small_kernel=4)
    module = kind(8, 13, norm_layer=lambda c: nn.GroupNorm(2, c))
    assert module(torch.rand(1, 8, 9, 9)).shape == (1, 8, 9, 9)
    with pytest.raises(ValueError, match='GroupNorm'):
        module.switch_to_deploy()
    with pytest.raises(ValueError, match=r'expected \(N, 8, H, W\), got \(1, 4, 9, 9\)'):
        module(torch.rand(1, 4, 9, 9))
