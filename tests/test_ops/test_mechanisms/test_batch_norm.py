"""Batch normalisation folded into a convolution, and of a single sample."""
import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from plugconv_mm.ops import KWConv2d
from plugconv_mm.ops.mechanisms.batch_norm import conv_bn, fold_batch_norm, folds, norm_of_features


def norm(channels=6, kind=nn.BatchNorm2d, **arguments):
    torch.manual_seed(0)
    module = kind(channels, **arguments)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    return module.double()


@pytest.mark.parametrize('affine', [True, False])
def test_scale_and_shift(affine):
    module, x = norm(affine=affine, eps=0.1).eval(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    scale, shift = fold_batch_norm(module)
    torch.testing.assert_close(x * scale[:, None, None] + shift[:, None, None], module(x))


def test_what_folds():
    assert folds(norm().eval()) and folds(nn.SyncBatchNorm(4).eval())
    assert not folds(norm().train())
    assert not folds(nn.BatchNorm2d(4, track_running_stats=False).eval())
    assert not folds(nn.GroupNorm(2, 4).eval()) and not folds(nn.Identity().eval())
    hooked = norm().eval()
    hooked.register_forward_hook(lambda *args: None)
    assert not folds(hooked)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('arguments', [
    dict(kernel_size=3), dict(kernel_size=3, padding=1, bias=False), dict(kernel_size=1, stride=2),
    dict(kernel_size=(1, 3), padding='same', groups=2), dict(kernel_size=3, dilation=2, padding=(1, 2)),
    dict(kernel_size=3, padding=1, padding_mode='reflect')], ids=str)
def test_conv_bn(arguments, training):
    conv, after = nn.Conv2d(4, 6, **arguments).double(), norm().train(training)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    want = copy.deepcopy(after)(conv(x))
    torch.testing.assert_close(conv_bn(conv, after, x), want)


def test_one_convolution_is_all_that_is_computed():
    conv, after = nn.Conv2d(4, 6, 3).double(), norm().eval()
    with torch.profiler.profile() as profile:
        conv_bn(conv, after, torch.randn(2, 4, 7, 8, dtype=torch.float64))
    names = [event.name for event in profile.events()]
    assert names.count('aten::conv2d') == 1 and 'aten::batch_norm' not in names


def test_gradients():
    conv, after = nn.Conv2d(2, 6, 2).double(), norm().eval()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: conv_bn(conv, after, x), (x, *conv.parameters(),
                                                                            *after.parameters()))


@pytest.mark.parametrize('after', [nn.GroupNorm(2, 6), nn.Identity(), nn.BatchNorm2d(6, track_running_stats=False)])
def test_other_norms(after):
    conv, x = nn.Conv2d(4, 6, 3), torch.rand(2, 4, 7, 8)
    torch.testing.assert_close(conv_bn(conv, after.eval(), x), after(conv(x)))


@pytest.mark.parametrize('size', [(7, 8), (1, 2)])
def test_a_dynamic_convolution_takes_scale_and_shift(size):
    conv, after, seen = KWConv2d(4, 6, 3, padding=1).double().eval(), norm().eval(), []
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    want = after(conv(x))
    torch.testing.assert_close(conv_bn(conv, after, x), want)
    conv.register_forward_hook(lambda module, args, y: seen.append((len(args), y)))
    torch.testing.assert_close(conv_bn(conv, after, x), want)
    (arguments, y), = seen  # a hook sees the convolution as it is
    assert arguments == 1
    torch.testing.assert_close(after(y), want)


@pytest.mark.parametrize('shape', [(1, 6), (1, 6, 1, 1)])
@pytest.mark.parametrize('parametrised', [False, True])
def test_one_sample_in_training(shape, parametrised):
    module = norm(kind=nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)
    if parametrised:
        parametrize.register_parametrization(module, 'weight', nn.Softplus())
    x, before = torch.randn(shape, dtype=torch.float64), copy.deepcopy(module.state_dict())
    want = copy.deepcopy(module).eval()(x)
    torch.testing.assert_close(norm_of_features(module.train(), x), want)
    assert module.training
    torch.testing.assert_close(dict(module.state_dict()), dict(before), rtol=0, atol=0)


def test_more_samples_and_other_norms_are_normalised_as_ever():
    module, x = norm(kind=nn.BatchNorm1d), torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(norm_of_features(module, x), copy.deepcopy(module)(x))
    assert module.num_batches_tracked == 1
    after = nn.LayerNorm(6).double()
    torch.testing.assert_close(norm_of_features(after, x[:1]), after(x[:1]))


def test_processes_do_not_wait_in_vain_for_one_with_a_single_sample(monkeypatch):
    module, called = nn.SyncBatchNorm(6), []
    monkeypatch.setattr(nn.SyncBatchNorm, 'forward', lambda self, x: called.append(x) or x)
    norm_of_features(module, torch.rand(1, 6))
    assert called
