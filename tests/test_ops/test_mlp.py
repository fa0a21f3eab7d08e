"""The MLP of a ConvNeXt's block against its definition, whole and in strips."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from plugconv_mm.ops import strips
from plugconv_mm.ops.mlp import residual_mlp

CHANNELS_LAST = torch.channels_last


def make(channels, dtype=torch.float64):
    torch.manual_seed(0)
    norm, fc1, fc2 = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, 4 * channels), nn.Linear(4 * channels,
                                                                                                    channels)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias, 0, 0.3)
    gamma = nn.Parameter(torch.randn(channels).to(dtype))
    return norm.to(dtype), fc1.to(dtype), fc2.to(dtype), gamma


def defined(x, y, norm, fc1, fc2, gamma):
    y = y.permute(0, 2, 3, 1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
    y = F.gelu((y * norm.weight + norm.bias) @ fc1.weight.T + fc1.bias) @ fc2.weight.T + fc2.bias
    return x + (gamma * y).permute(0, 3, 1, 2)


@pytest.mark.parametrize('channels', [8, 7, 6])
@pytest.mark.parametrize('layout', [torch.contiguous_format, CHANNELS_LAST])
def test_definition(channels, layout, monkeypatch):
    monkeypatch.setattr(strips, '_POSITIONS', 11)
    layers = make(channels)
    for layer in layers[:3]:
        layer.eval()
    x, y = torch.randn(2, 2, channels, 5, 9, dtype=torch.float64)
    x, y = x.contiguous(memory_format=layout), y.contiguous(memory_format=layout)
    before = x.clone(), y.clone()
    want = defined(x, y, *layers)
    torch.testing.assert_close(residual_mlp(x, y, *layers, nn.Identity()), want)
    with torch.no_grad():
        got = residual_mlp(x, y, *layers, nn.Identity())
    torch.testing.assert_close(got, want)
    assert got.is_contiguous(memory_format=CHANNELS_LAST)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_gradients():
    layers = make(4)
    x, y, upstream = (torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=i < 2) for i in range(3))
    wanted = [x, y, layers[3], *(p for layer in layers[:3] for p in layer.parameters())]
    got = torch.autograd.grad(residual_mlp(x, y, *layers, nn.Identity()), wanted, upstream)
    want = torch.autograd.grad(defined(x, y, *layers), wanted, upstream)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('grad', [True, False])
def test_a_dropped_path_leaves_the_shortcut(grad):
    layers = make(4)
    x, y = torch.randn(2, 2, 4, 3, 5, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        assert torch.equal(residual_mlp(x, y, *layers, torch.zeros_like), x)


def test_a_young_gamma_survives_autocast():
    norm, fc1, fc2, gamma = make(8, torch.float32)
    x, y = torch.zeros(1, 8, 3, 5), torch.randn(1, 8, 3, 5)
    young = 1e-9 * gamma
    with torch.no_grad(), torch.autocast('cpu', torch.float16):
        got = residual_mlp(x, y, norm, fc1, fc2, young, nn.Identity())
    want = defined(x, y, norm, fc1, fc2, young)
    assert (got - want).norm() < 1e-2 * want.norm()
