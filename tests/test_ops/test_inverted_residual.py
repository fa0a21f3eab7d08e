"""Inverted residuals in strips of rows against the layers one after the other."""
import pytest
import torch
from torch import nn

from plugconv_mm.ops import inverted_residual as module
from plugconv_mm.ops.inverted_residual import inverted_residual


def make(channels, width, out_channels, kernel_size, stride, expand=True):
    """Layers whose zeros are moved by their norms, so that a wrongly padded border would show."""
    torch.manual_seed(0)
    layers = []
    if expand:
        layers.append(nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.SiLU(inplace=True)))
    layers.append(nn.Sequential(
        nn.Conv2d(width, width, kernel_size, stride, kernel_size // 2, groups=width, bias=False),
        nn.BatchNorm2d(width), nn.SiLU(inplace=True)))
    layers.append(nn.Sequential(nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)))
    layers = nn.Sequential(*layers).double().eval()
    for m in layers.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight, m.bias, m.running_mean, m.running_var):
                nn.init.uniform_(t, 0.5, 1.5)
    return layers


@pytest.mark.parametrize('kernel_size', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('expand', [True, False])
@pytest.mark.parametrize('rows', [1, 2, 3])
@pytest.mark.parametrize('size', [(7, 5), (8, 6)])
def test_strips_make_no_difference(kernel_size, stride, expand, rows, size, monkeypatch):
    layers = make(6, 6 if not expand else 10, 4, kernel_size, stride, expand)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    before, want = x.clone(), layers(x)
    monkeypatch.setattr(module, '_STRIP_BYTES', rows * stride * (10 if expand else 6) * size[1] * 8)
    calls = []
    for layer in layers:
        layer[0].register_forward_hook(lambda *args: calls.append(args))
    with torch.no_grad():
        torch.testing.assert_close(inverted_residual(x, *layers), want)
    assert not calls  # it went by strips
    torch.testing.assert_close(inverted_residual(x, *layers), want)
    assert torch.equal(x, before)


def test_statistics_of_a_batch_need_the_whole_map(monkeypatch):
    monkeypatch.setattr(module, '_STRIP_BYTES', 1)
    layers = make(6, 10, 4, 3, 1)
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    layers.train()
    with torch.no_grad():
        torch.testing.assert_close(inverted_residual(x, *layers), layers(x))


def test_gradients(monkeypatch):
    monkeypatch.setattr(module, '_STRIP_BYTES', 1)
    layers = make(3, 6, 3, 3, 1)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layers.parameters()]
    got = torch.autograd.grad(inverted_residual(x, *layers).square().sum(), wanted)
    want = torch.autograd.grad(layers(x).square().sum(), wanted)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
