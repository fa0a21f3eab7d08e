"""Convolutions with long kernels against PyTorch's own, and their gradients."""
import pytest
import torch
import torch.nn.functional as F

from plugconv_mm.ops.mechanisms import long_kernels
from plugconv_mm.ops.mechanisms.long_kernels import LongConv, tall_and_wide


@pytest.mark.parametrize('chunk_bytes', [1, 2**22])
@pytest.mark.parametrize('size', [(9, 14), (1, 1), (40, 3)])
def test_tall_and_wide(size, chunk_bytes, monkeypatch):
    monkeypatch.setattr(long_kernels, '_CHUNK_BYTES', chunk_bytes)
    x, bias = torch.randn(2, 40, *size), torch.randn(40)
    tall, wide = torch.randn(40, 1, 21, 3), torch.randn(40, 1, 3, 21)
    want = (F.conv2d(x, tall, bias, padding=(10, 1), groups=40) + F.conv2d(x, wide, padding=(1, 10), groups=40))
    y = tall_and_wide(x.contiguous(memory_format=torch.channels_last), tall, wide, bias)
    torch.testing.assert_close(y, want, atol=1e-4, rtol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('kernel', [(21, 3), (3, 21), (1, 31), (5, 5)])
@pytest.mark.parametrize('size', [(7, 90), (90, 7), (2, 2)])
def test_gradients_are_those_of_the_convolution(kernel, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    want = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=3)
    got = LongConv.apply(x, weight)
    torch.testing.assert_close(got, want)
    coefficients = torch.randn_like(want)
    for ours, theirs in zip(*(torch.autograd.grad((y * coefficients).sum(), (x, weight)) for y in (got, want)),
                            strict=True):
        torch.testing.assert_close(ours, theirs)
