"""The forms of large kernels against PyTorch's convolutions, one by one and within the layers."""
import copy

import pytest
import torch
import torch.nn.functional as F
from random_state import randomise_state
from torch import nn

from plugconv_mm.ops import DecomposedLargeKernelConv2d, LargeKernelConv2d, autotune
from plugconv_mm.ops.mechanisms import tuning
from plugconv_mm.ops.mechanisms.thin_kernels import banded, fft, forms
from plugconv_mm.ops.mechanisms.thin_kernels.bilinear import Convolution

PLAIN = {'banded': banded.FORM, 'fft': fft.FORM}
KINDS = [DecomposedLargeKernelConv2d, LargeKernelConv2d]
each_form = pytest.mark.parametrize('form', PLAIN)
each_kind = pytest.mark.parametrize('kind', KINDS)


@pytest.fixture(autouse=True)
def seed():
    """The rounding of half types is compared with a bound, to which some random maps come near."""
    torch.manual_seed(0)


def published(module, x):
    """The sum of the branches, each a convolution and its normalisation; or of the deployed convolutions."""
    parts = [getattr(module, name) for name in module.large] + [module.small_conv] * (module.small_conv is not None)
    total = 0
    for part in parts:
        conv = part if module.deployed else part.conv
        padding = [side // 2 for side in conv.kernel_size]
        y = F.conv2d(x, conv.weight, conv.bias, padding=padding, groups=len(conv.weight))
        total = total + (y if module.deployed else part.bn(y))
    return total


def convolution(x, weight):
    return F.conv2d(x, weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=len(weight))


@pytest.mark.parametrize('batch, memory_format', [(1, torch.contiguous_format), (3, torch.channels_last)])
@pytest.mark.parametrize('size', [(5, 6), (1, 1), (70, 3), (4, 150), (13, 103), (210, 2)])
@pytest.mark.parametrize('kernel', [(7, 3), (3, 7), (51, 5), (5, 51), (1, 21), (21, 1), (9, 9), (61, 61), (1, 1)])
@each_form
def test_each_is_the_convolution(form, kernel, size, batch, memory_format):
    """Kernels shorter and longer than the map, and lines of one tile and of several; both gradients."""
    x = torch.randn(batch, 3, *size, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    want, got = convolution(x, weight), Convolution.apply(x, weight, PLAIN[form])
    torch.testing.assert_close(got, want)
    assert got.stride() == x.stride()
    upstream = torch.randn_like(want)
    for g, w in zip(*(torch.autograd.grad(y, (x, weight), upstream) for y in (got, want)), strict=True):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize('kernel', [(3, 5), (7, 1), (9, 9)])
@each_form
def test_gradients_of_any_order(form, kernel):
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, *kernel, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: Convolution.apply(x, w, PLAIN[form]), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: Convolution.apply(x, w, PLAIN[form]), (x, weight), fast_mode=True)


@pytest.mark.parametrize('length, good', [(0, 1), (1, 1), (7, 8), (49, 50), (54, 54), (81, 81), (361, 375)])
def test_lengths_of_transforms(length, good):
    assert fft.good_length(length) == good


@pytest.mark.parametrize('size', [(12, 9), (3, 110)])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kernel_size, small_kernel', [(21, 5), (13, 3), (5, 5)])
@each_kind
@each_form
def test_layers(form, kind, kernel_size, small_kernel, training, size):
    """Outputs, running statistics and gradients are those of the published formulation, for any form."""
    module = randomise_state(kind(4, kernel_size, small_kernel, form=form)).double().train(training)
    other = copy.deepcopy(module)
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    sides = []
    for m, y in ((module, module(x)), (other, published(other, x))):
        sides.append((y, *m.buffers(), *torch.autograd.grad(y.sin().sum(), [x, *m.parameters()])))
    for got, want in zip(*sides, strict=True):
        torch.testing.assert_close(got, want)


@each_kind
@each_form
def test_deployed(form, kind):
    module = randomise_state(kind(4, 21, form=form)).eval()
    x = torch.randn(2, 4, 10, 15)
    want, names = module(x), list(kind(4, 21).state_dict())
    assert list(module.state_dict()) == names
    module.switch_to_deploy()
    assert module.form == form
    torch.testing.assert_close(module(x), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module(x), published(module, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('training', [True, False])
@each_kind
@each_form
def test_memory_format(form, kind, training):
    module = randomise_state(kind(4, 21, form=form)).train(training)
    x = torch.randn(2, 4, 10, 15)
    y = module(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), y)


@pytest.mark.parametrize('training', [True, False])
@each_kind
@each_form
def test_empty_batch(form, kind, training):
    module = kind(4, 21, form=form).train(training)
    x = torch.randn(0, 4, 10, 15, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.shape == x.shape == x.grad.shape
    assert not any(p.grad.any() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('autocast', [True, False])
@each_kind
@each_form
def test_half_types(form, kind, autocast, training, dtype, tolerance):
    """By autocast and whole modules; types of outputs and gradients are those of the convolutions."""
    reference = kind(4, 21).double().train(training)
    module = copy.deepcopy(reference).to(torch.float32 if autocast else dtype)
    module.form = form
    x = torch.randn(2, 4, 10, 15).to(dtype)
    given = (x.float() if autocast else x).requires_grad_()
    with torch.autocast('cpu', dtype, enabled=autocast):
        got = module(given)
        kept = copy.deepcopy(module)
        kept.form = 'conv'
        assert got.dtype == kept(given).dtype
    got.float().square().mean().backward()
    exact = x.double().detach().requires_grad_()
    want = reference(exact)
    want.square().mean().backward()
    pairs = zip(module.parameters(), reference.parameters(), strict=True)
    kernels = [(p.grad, q.grad) for p, q in pairs if p.dim() == 4]
    for a, b in ((got, want), (given.grad, exact.grad), *kernels):
        assert (a.double() - b).abs().max() <= tolerance * b.abs().max()


@each_form
def test_other_types_are_refused(form):
    module = DecomposedLargeKernelConv2d(4, 21, form=form).eval()
    with pytest.raises(TypeError, match='the input is torch.float64 and the kernels are torch.float32: convert one'):
        module(torch.rand(1, 4, 9, 9).double())


@each_kind
def test_unknown_forms_are_refused(kind):
    with pytest.raises(ValueError, match="form must be 'auto' or one of 'conv', 'banded', 'fft', .*got 'dct'"):
        kind(4, 21, form='dct')
    module = kind(4, 21)
    assert module.form == 'auto'
    module.form = 'dct'
    with pytest.raises(ValueError, match="form must be 'auto' or .* got 'dct'"):
        module(torch.rand(2, 4, 9, 9))


@pytest.fixture
def taken(monkeypatch):
    """Names of the forms whose convolutions were computed."""
    names = []
    for name, form in PLAIN.items():
        monkeypatch.setitem(forms._FORMS, name, form._replace(
            convolve=lambda x, w, name=name, form=form: names.append(name) or form.convolve(x, w)))
    return names


@pytest.mark.parametrize('training', [True, False])
@each_kind
@each_form
def test_the_form_is_the_one_that_was_asked_for(form, kind, training, taken):
    module = kind(4, 21).train(training)
    x = torch.rand(2, 4, 9, 9)
    for name in ('auto', 'conv'):  # nothing was measured
        module.form = name
        module(x)
        assert not taken
    module.form = form
    module(x)
    assert taken == [form] * len(module.large)


@each_kind
@each_form
def test_tracers_record_convolutions(form, kind, taken):
    module = randomise_state(kind(4, 21, form=form)).eval().requires_grad_(False)
    x = torch.randn(2, 4, 9, 12)
    want = published(module, x)
    exported = torch.export.export(module, (x, )).module()
    compiled = torch.compile(module, backend='eager', fullgraph=True)
    for recorded in (exported, torch.jit.trace(module, x, check_trace=False), compiled):
        torch.testing.assert_close(recorded(x), want, atol=1e-4, rtol=1e-4)
    assert not taken


@each_form
def test_layers_with_hooks_are_called(form, taken):
    module = DecomposedLargeKernelConv2d(4, 21, form=form)
    seen = []
    module.vertical.conv.register_forward_hook(lambda *args: seen.append(args))
    module(torch.rand(2, 4, 9, 9))
    assert seen and not taken


@pytest.mark.parametrize('training', [True, False])
@each_kind
@each_form
def test_auto_takes_the_measured_form(form, kind, training, taken, monkeypatch):
    monkeypatch.setattr(tuning, '_choices', type(tuning._choices)())
    monkeypatch.setattr(tuning, 'milliseconds', lambda runs, device: {
        name: 1. if name == form else 2. for name in runs})
    module = randomise_state(kind(4, 21)).train(training)
    other = copy.deepcopy(module)
    x = torch.randn(2, 4, 9, 9)
    with autotune():
        got = module(x)
    torch.testing.assert_close(got, published(other, x), atol=1e-4, rtol=1e-4)
    for a, b in zip(module.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)  # measuring leaves running statistics alone
    taken.clear()
    module(x)
    assert taken == [form] * len(module.large)


def test_convolutions_of_layers_without_folding():
    module = randomise_state(DecomposedLargeKernelConv2d(4, 21, norm_layer=lambda c: nn.GroupNorm(2, c))).eval()
    x = torch.randn(2, 4, 9, 9)
    want = published(module, x)
    for form in ('conv', *PLAIN):
        module.form = form
        torch.testing.assert_close(module(x), want, atol=1e-4, rtol=1e-4)
