"""The global-local filter against its definition."""
import copy
import doctest

import pytest
import torch
import torch.nn.functional as F

from plugconv_mm.ops import GlobalLocalFilter, global_local_filter

SIZES = [(7, 7), (14, 14), (25, 42), (1, 9), (9, 1), (1, 1), (2, 3)]


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.5, generator=generator)
    return module


def defined_filter(module, x):
    """The filter as sums: the circular convolution is formed from the kernel in space."""
    def norm(x, layer):
        centred = x - x.mean(1, keepdim=True)
        x = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return x * layer.weight[:, None, None] + layer.bias[:, None, None]

    rows, columns = x.shape[2:]
    x = norm(x, module.pre_norm)
    half = x.shape[1] // 2
    local = F.conv2d(x[:, :half], module.dw.weight, padding=1, groups=half)
    real, imaginary = (F.interpolate(part[None], (rows, columns // 2 + 1), mode='bilinear', align_corners=True)[0]
                       for part in module.complex_weight.unbind(-1))
    kernel = torch.fft.irfft2(torch.complex(real, imaginary), s=(rows, columns))
    wide = torch.zeros_like(x[:, half:])
    for i in range(rows):
        for j in range(columns):
            wide += kernel[:, i, j, None, None] * x[:, half:].roll((i, j), (2, 3))
    return norm(torch.stack((local, wide), 2).flatten(1, 2), module.post_norm)


@pytest.mark.parametrize('size', SIZES)
def test_filter_follows_its_definition(size):
    module = randomise(GlobalLocalFilter(6, h=5, w=3).double())
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(module(x), defined_filter(module, x))
    module.eval()
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(module(x), defined_filter(module, x))


def test_a_batch_of_no_images_gives_no_maps():
    module = GlobalLocalFilter(4, h=5, w=3)
    for size in ((5, 4), (8, 9)):
        x = torch.zeros(0, 4, *size, requires_grad=True)
        y = module(x)
        assert y.shape == x.shape and y.dtype == x.dtype
        y.sum().backward()
        assert x.grad.shape == x.shape and not any(p.grad.any() for p in module.parameters())
        with torch.no_grad():
            assert module.eval()(x).shape == x.shape
        module.train()


class Counts(GlobalLocalFilter):
    calls = 0

    def _stretch(self, *size):
        self.calls += 1
        return super()._stretch(*size)


def test_the_stretched_weight_is_kept_in_evaluation_and_follows_the_weight():
    module = randomise(Counts(4, h=5, w=3))
    small, large = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 8, 9)
    for _ in range(2):
        module(small)
    assert module.calls == 2  # never kept in training
    module.eval()
    with torch.no_grad():
        for x in (small, large, small, large, small):
            module(x)
        assert module.calls == 4
        before = module(small)
        module.complex_weight.mul_(2)
        changed = module(small)
        assert module.calls == 5 and not torch.allclose(changed, before)
        module.complex_weight.data.mul_(0.5)  # past the version counter
        torch.testing.assert_close(module(small), before)
        module.load_state_dict({key: value * 2 for key, value in module.state_dict().items()})
        torch.testing.assert_close(module(small), copy.deepcopy(module)(small))
        assert module(small.double().float()).dtype == torch.float32
    assert not [key for key in module.state_dict() if 'cache' in key]
    module.train()
    calls = module.calls
    module(small)
    assert module.calls == calls + 1


def test_weights_of_another_size_are_stretched():
    """As they would be for a map of that size; other differences of shape stay errors."""
    small, large = GlobalLocalFilter(8, h=14, w=8).eval(), GlobalLocalFilter(8, h=24, w=13).eval()
    state = small.state_dict()
    large.load_state_dict(state)
    assert state['complex_weight'].shape == (4, 14, 8, 2) and large.complex_weight.shape == (4, 24, 13, 2)
    x = torch.randn(2, 8, 24, 24)
    torch.testing.assert_close(large(x), small(x))
    again = GlobalLocalFilter(8, h=14, w=8)
    again.load_state_dict(state)
    assert torch.equal(again.complex_weight, small.complex_weight)
    with pytest.raises(RuntimeError, match='complex_weight'):
        GlobalLocalFilter(16, h=24, w=13).load_state_dict(state)


def test_the_filter_needs_an_even_width():
    with pytest.raises(ValueError, match='cannot halve dim=5'):
        GlobalLocalFilter(5)


def test_examples():
    tested = doctest.testmod(global_local_filter)
    assert tested.attempted and not tested.failed
