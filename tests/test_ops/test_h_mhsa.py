"""H-MHSA against the paper's formulation written out position by position."""
import pytest
import torch
from torch import nn

from plugconv_mm.ops import HMHSA
from plugconv_mm.ops.h_mhsa import _attend, _from_windows, _to_windows


def make(*args, **kwargs):
    """An HMHSA whose norms do something, in evaluation mode and double precision."""
    torch.manual_seed(0)
    module = HMHSA(*args, **kwargs).double().eval()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 2)
        if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.3)
    return module


def conv1x1(conv, vector):
    return conv.weight.flatten(1) @ vector + conv.bias


def attention(query, keys, values, width):
    """One query over a list of keys, head by head."""
    heads = []
    for i in range(0, len(query), width):
        scores = torch.stack([query[i:i + width] @ k[i:i + width] for k in keys]) / width**0.5
        heads.append(sum(w * v[i:i + width] for w, v in zip(scores.softmax(0), values, strict=True)))
    return torch.cat(heads)


def written_out(module, x):
    """What the docstring says, with loops: windows and pooled cells hold the positions inside the map."""
    n, c, height, width = x.shape
    size, ratio, head = module.grid_size, module.pool_ratio, module.head_width
    y = module.norm(x)
    out = torch.empty_like(x)
    for b in range(n):
        qkv = {(i, j): conv1x1(module.qkv, y[b, :, i, j]).chunk(3) for i in range(height) for j in range(width)}
        if size == 1:
            keys, values = [k for _, k, _ in qkv.values()], [v for _, _, v in qkv.values()]
            for (i, j), (q, _, _) in qkv.items():
                out[b, :, i, j] = conv1x1(module.proj, attention(q, keys, values, head))
            continue
        g = torch.empty_like(x[b])
        for (i, j), (q, _, _) in qkv.items():
            window = [qkv[a] for a in qkv if (a[0] // size, a[1] // size) == (i // size, j // size)]
            g[:, i, j] = attention(q, [k for _, k, _ in window], [v for _, _, v in window], head)
        g = module.grid_norm((g + x[b])[None])[0]
        cells = [g[:, i:i + ratio, j:j + ratio].mean((1, 2)) for i in range(0, height, ratio)
                 for j in range(0, width, ratio)]
        pooled = module.ds_norm(torch.stack(cells, 1)[None, :, :, None])[0, :, :, 0]
        kv = [conv1x1(module.kv, pooled[:, i]).chunk(2) for i in range(pooled.shape[1])]
        for i in range(height):
            for j in range(width):
                o = attention(conv1x1(module.q, g[:, i, j]), [k for k, _ in kv], [v for _, v in kv], head)
                out[b, :, i, j] = conv1x1(module.proj, o + g[:, i, j])
    return out


@pytest.mark.parametrize('grid_size, pool_ratio, height, width', [
    (4, 2, 8, 12), (4, 4, 8, 8), (4, 1, 4, 8), (1, 1, 3, 5), (4, 2, 7, 9), (4, 4, 5, 11), (8, 8, 3, 10), (4, 3, 6, 4)])
@pytest.mark.parametrize('norm_layer', [nn.BatchNorm2d, lambda c: nn.GroupNorm(1, c)], ids=['BN', 'GN'])
def test_agrees_with_the_formulas_written_out(norm_layer, grid_size, pool_ratio, height, width):
    module = make(16, grid_size, pool_ratio, head_width=8, norm_layer=norm_layer)
    x = torch.randn(2, 16, height, width, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(module(x), written_out(module, x))


def test_gradients():
    module = make(4, grid_size=2, pool_ratio=2, head_width=2)
    x = torch.randn(1, 4, 3, 5, dtype=torch.double, requires_grad=True)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, ))

    assert torch.autograd.gradcheck(run, (x, *parameters))
    # The loss tells positions apart: a sum is blind to a key's bias, and so is attention itself.
    module.float()(x.float()).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_padding_does_not_leak():
    x = torch.randn(2, 5, 6, 16)  # (N, H, W, C)
    windows, mask = _to_windows(x, 4)
    assert windows.shape == (2 * 2 * 2, 16, 16) and mask.shape == (8, 1, 1, 16)
    assert mask.sum() == 2 * 5 * 6 and mask.flatten(1).any(1).all()
    # Whatever stands in the padding of keys and values, the positions inside the map get the same.
    inside = mask.view(8, 16, 1)
    spoilt = torch.where(inside, windows, 1e4 * torch.randn_like(windows))
    results = [_from_windows(_attend(w[:, None], w[:, None], w[:, None], mask), 2, 5, 6, 4) for w in (windows, spoilt)]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_divisible_maps_need_no_mask():
    x = torch.randn(2, 8, 12, 16)
    windows, mask = _to_windows(x, 4)
    assert mask is None
    torch.testing.assert_close(_from_windows(windows, 2, 8, 12, 4), x.permute(0, 3, 1, 2))


def test_images_of_a_batch_do_not_mix():
    module = make(16, 4, 2, head_width=8)
    x = torch.randn(3, 16, 6, 7, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


def test_memory_format_does_not_matter():
    module = make(16, 4, 2, head_width=8)
    x = torch.randn(2, 16, 9, 10, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(module(x), module(x.contiguous(memory_format=torch.channels_last)))


def test_training_statistics_come_from_the_map_alone():
    """Batch statistics of the inner norms are those of the positions inside the map, not of padded windows."""
    module = make(16, 4, 2, head_width=8).train()
    seen = []
    module.grid_norm.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape))
    module(torch.randn(2, 16, 5, 6, dtype=torch.double))
    assert seen == [(2, 16, 5, 6)]


def test_other_norms():
    module = HMHSA(8, 4, 2, head_width=8, norm_layer=lambda c: nn.GroupNorm(2, c))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    x = torch.randn(1, 8, 5, 5)
    assert module(x).shape == (1, 8, 5, 5)
    # Behind frozen layers: torch's group norm alone would end the process in its backward pass.
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        module.zero_grad()
        module(x.contiguous(memory_format=memory_format)).square().sum().backward()
        gradients.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(*gradients)


def test_autocast():
    module = make(16, 4, 2, head_width=8).float()
    x = torch.randn(1, 16, 7, 9)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        half = module(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), module(x).detach(), rtol=0.1, atol=0.1)


@pytest.mark.parametrize('kwargs, message', [
    (dict(channels=96), r'channels \(96\) must be a multiple of head_width \(64\)'),
    (dict(channels=64, grid_size=0), 'grid_size must be at least 1, got 0'),
    (dict(channels=64, pool_ratio=-1), 'pool_ratio must be at least 1, got -1'),
    (dict(channels=64, grid_size=1, pool_ratio=2), 'grid_size=1 is plain attention .* got pool_ratio=2'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HMHSA(**kwargs)


@pytest.mark.parametrize('shape', [(1, 8, 4, 4), (16, 4, 4), (1, 4, 4, 16)])
def test_bad_inputs(shape):
    with pytest.raises(ValueError, match=r'expected an input of shape \(N, 16, H, W\), got'):
        HMHSA(16, 4, head_width=8)(torch.rand(shape))
