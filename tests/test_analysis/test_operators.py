"""What one operator counts, against counts by hand."""
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from plugconv_mm.analysis import OperatorCounter


def count(run):
    with torch.no_grad(), OperatorCounter() as counter:
        run()
    return dict(counter.macs)


@pytest.mark.parametrize('layer, macs', [
    (nn.Conv2d(4, 6, 3, stride=2, padding=1), 2 * 6 * 5 * 4 * 4 * 9),
    (nn.Conv2d(4, 4, 3, groups=4), 2 * 4 * 8 * 6 * 9),
    (nn.Conv2d(4, 8, (5, 1), groups=2), 2 * 8 * 6 * 8 * 2 * 5),
    (nn.ConvTranspose2d(4, 6, 2, stride=2), 2 * 80 * 4 * 6 * 4)])
def test_convolution(layer, macs):
    assert count(lambda: layer(torch.rand(2, 4, 10, 8))) == {'convolution': macs}


def test_deformable_convolution():
    from torchvision.ops import deform_conv2d
    x, offset, weight = torch.rand(1, 4, 6, 5), torch.rand(1, 18, 6, 5), torch.rand(8, 4, 3, 3)
    assert count(lambda: deform_conv2d(x, offset, weight, padding=1)) == {
        'convolution': 8 * 30 * 4 * 9 + 4 * (30 * 4 * 9)}


def test_matrix_products():
    x = torch.rand(2, 5, 7)
    assert count(lambda: nn.Linear(7, 3)(x)) == {'matrix product': 10 * 7 * 3}
    assert count(lambda: nn.Linear(7, 3, bias=False)(x)) == {'matrix product': 10 * 7 * 3}
    assert count(lambda: x @ x.mT) == {'matrix product': 2 * 5 * 5 * 7}
    z = torch.rand(2, 5, 7, dtype=torch.complex64)
    assert count(lambda: z @ z.mT) == {'complex product': 4 * 2 * 5 * 5 * 7}


def test_attention_is_two_products():
    q, k = torch.rand(2, 3, 10, 8), torch.rand(2, 3, 6, 8)
    assert count(lambda: F.scaled_dot_product_attention(q, k, k)) == {'matrix product': 2 * (2 * 3 * 10 * 6 * 8)}


def test_products_of_numbers():
    x, z = torch.rand(3, 4), torch.rand(3, 4, dtype=torch.complex64)
    assert count(lambda: z * z) == {'complex product': 3 * 12}
    assert count(lambda: z.mul_(z)) == {'complex product': 3 * 12}
    assert count(lambda: (x * x, x + x, F.gelu(x), x.softmax(1))) == {}


def butterflies(n):
    """Those of a radix-2 transform, by its recursion."""
    return 0 if n == 1 else 2 * butterflies(n // 2) + n // 2


@pytest.mark.parametrize('n', [8, 64])
def test_fourier_transforms_along_one_axis(n):
    operations = 10 * butterflies(n)  # one complex product (6) and two complex sums (4)
    z = torch.rand(3, n, dtype=torch.complex64)
    assert count(lambda: torch.fft.fft(z)) == {'FFT': 3 * operations // 2}
    x = torch.rand(3, n)
    assert count(lambda: torch.fft.rfft(x)) == {'FFT': 3 * operations // 4}
    assert count(lambda: torch.fft.irfft(z[:, :n // 2 + 1], n=n)) == {'FFT': 3 * operations // 4}


def test_fourier_transforms_along_two_axes():
    x = torch.rand(2, 3, 12, 10)
    expected = 6 * (12 * 1.25 * 10 * math.log2(10) + 6 * 2.5 * 12 * math.log2(12))
    assert count(lambda: torch.fft.rfft2(x, norm='ortho'))['FFT'] == pytest.approx(expected, abs=1)
    z = torch.rand(2, 3, 12, 6, dtype=torch.complex64)
    assert count(lambda: torch.fft.irfft2(z, s=(12, 10), norm='ortho'))['FFT'] == pytest.approx(expected, abs=1)


def test_norms_interpolation_and_pooling():
    x = torch.rand(2, 4, 6, 8)
    assert count(lambda: nn.BatchNorm2d(4).eval()(x)) == {'norm': x.numel()}
    assert count(lambda: nn.LayerNorm(8)(x)) == {'norm': 4 * x.numel()}
    assert count(lambda: nn.GroupNorm(2, 4)(x)) == {'norm': 4 * x.numel()}
    assert count(lambda: F.interpolate(x, (12, 16), mode='bilinear')) == {'interpolation': 4 * 4 * x.numel()}
    assert count(lambda: F.interpolate(x, (12, 16))) == {}
    assert count(lambda: x.mean((2, 3))) == {'pooling': x.numel() // 2}
    assert count(lambda: F.adaptive_avg_pool2d(x, 1)) == {'pooling': x.numel() // 2}
    assert count(lambda: F.avg_pool2d(x, 2)) == {'pooling': x.numel() // 2}
    assert count(lambda: F.max_pool2d(x, 2)) == {}
