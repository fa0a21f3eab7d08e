"""The residual MLP against its formula, in each of the ways in which it is computed."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from plugconv_mm.ops.mlp import residual_mlp


class Halves(nn.Module):
    """Keeps half of the branch in training, nothing changes in evaluation."""

    def forward(self, x):
        return x * 0.5 if self.training else x


def layers(channels, hidden, bias=True):
    torch.manual_seed(0)
    norm, fc1, fc2 = (m.double() for m in (nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, hidden, bias),
                                           nn.Linear(hidden, channels, bias)))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, fc1, fc2, torch.randn(channels, dtype=torch.float64, requires_grad=True)


def by_definition(x, y, norm, fc1, fc2, gamma, factor=1.):
    """Token by token of a map (N, C, H, W)."""
    out = torch.empty_like(x)
    for n in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                token = y[n, :, i, j]
                token = (token - token.mean()) / (token.var(unbiased=False) + 1e-6).sqrt() * norm.weight + norm.bias
                token = fc2(F.gelu(fc1(token)))
                out[n, :, i, j] = x[n, :, i, j] + factor * gamma * token
    return out


@pytest.mark.parametrize('gradients', [True, False])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('channels, hidden, bias', [(8, 32, True), (8, 16, False), (6, 10, True), (5, 9, False)])
def test_formula(channels, hidden, bias, training, gradients):
    *modules, gamma = layers(channels, hidden, bias)
    drop_path = Halves().train(training)
    x, y = (t.contiguous(memory_format=torch.channels_last)
            for t in torch.randn(2, 2, channels, 3, 5, dtype=torch.float64))
    with torch.set_grad_enabled(gradients):
        got = residual_mlp(x, y, *modules, gamma, drop_path)
        want = by_definition(x, y, *modules, gamma, 0.5 if training else 1.)
    torch.testing.assert_close(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_maps_of_more_positions_than_a_chunk():
    *modules, gamma = layers(4, 8)
    x, y = torch.randn(2, 2, 4, 47, 53, dtype=torch.float64)
    with torch.no_grad():
        got = residual_mlp(x, y, *modules, gamma, nn.Identity().eval())
    torch.testing.assert_close(got, residual_mlp(x, y, *modules, gamma, nn.Identity()))


def test_gradients():
    *modules, gamma = layers(4, 6)
    x, y = (torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    parameters = [p for m in modules for p in m.parameters()]
    assert torch.autograd.gradcheck(lambda x, y, gamma, *_: residual_mlp(x, y, *modules, gamma, nn.Identity()),
                                    (x, y, gamma, *parameters))


@pytest.mark.parametrize('gradients', [True, False])
def test_a_small_gamma_survives_autocast(gradients):
    """The branch is scaled in float32: in bfloat16, weights times 1e-6 would round by a hundredth."""
    *modules, _ = (m.float() if isinstance(m, nn.Module) else m for m in layers(8, 32))
    gamma = torch.full((8, ), 1e-6)
    x, y = torch.zeros(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    with torch.set_grad_enabled(gradients):
        with torch.autocast('cpu', torch.bfloat16):
            got = residual_mlp(x, y, *modules, gamma, nn.Identity())
        want = residual_mlp(x, y, *modules, gamma, nn.Identity())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=2e-2 * want.abs().max().item())
