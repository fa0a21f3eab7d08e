"""The forms in which operators leave for ONNX, which has no complex numbers and no kernels of a sample's own."""
import pytest
import torch
from torch import nn

from plugconv_mm.ops import GlobalLocalFilter, KernelWarehouse, KWConv2d, KWLinear, ParC2d
from plugconv_mm.ops.mechanisms.dft import dft_matrix, irdft_matrix, rdft_matrix

sizes = pytest.mark.parametrize('size', [(1, 1), (2, 3), (7, 10), (14, 9), (16, 21)], ids=str)


def run(module, x):
    with torch.no_grad():
        return module.eval()(x)


@pytest.fixture
def both_forms(monkeypatch):
    """The output as usual, and in the form for export; neither FFTs nor complex numbers occur in the latter."""
    def forms(module, x):
        usual = run(module, x)
        with monkeypatch.context() as patch:
            patch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
            for name in ('rfft', 'irfft', 'rfft2', 'irfft2'):
                patch.setattr(torch.fft, name, None)
            return usual, run(module, x)
    return forms


@pytest.mark.parametrize('length', [1, 2, 7, 12, 31, 336])
def test_matrices_are_the_transforms(length):
    like = torch.zeros(1, dtype=torch.float64)
    real, other = torch.randn(2, 3, length, dtype=torch.float64)
    expected = torch.fft.rfft(real, norm='ortho')
    torch.testing.assert_close(real @ rdft_matrix(length, like), torch.cat((expected.real, expected.imag), 1))
    # An inverse takes no notice of what no real signal has: imaginary parts of the first and the middle frequency.
    spectrum = expected + 1j * torch.randn(3, length // 2 + 1, dtype=torch.float64)
    torch.testing.assert_close(torch.cat((spectrum.real, spectrum.imag), 1) @ irdft_matrix(length, like),
                               torch.fft.irfft(spectrum, n=length, norm='ortho'))
    expected = torch.fft.fft(torch.complex(real, other).T, dim=0, norm='ortho')
    matrix = dft_matrix(length, like)
    torch.testing.assert_close(matrix @ torch.cat((real.T, other.T)), torch.cat((expected.real, expected.imag)))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2 * length, dtype=torch.float64))


@sizes
def test_global_filter(size, both_forms):
    module = GlobalLocalFilter(6, h=7, w=4)
    nn.init.normal_(module.complex_weight)
    torch.testing.assert_close(*both_forms(module, torch.randn(2, 6, *size)), rtol=1e-4, atol=1e-5)


@sizes
@pytest.mark.parametrize('direction', ['H', 'W'])
@pytest.mark.parametrize('groups', [1, 3, 6])
@pytest.mark.parametrize('backend', ['auto', 'fft', 'gemm', 'spatial'])
def test_parc(size, direction, groups, backend, both_forms):
    module = ParC2d(6, direction, 7, groups, backend=backend)
    torch.testing.assert_close(*both_forms(module, torch.randn(3, 6, *size)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('settings', [
    dict(kernel_size=1), dict(kernel_size=1, stride=2), dict(kernel_size=1, padding=1), dict(kernel_size=3, padding=1),
    dict(kernel_size=(3, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)), dict(kernel_size=2, padding='same'),
    dict(kernel_size=3, padding='valid', groups=2), dict(kernel_size=7, padding=3, groups=4, bias=False)], ids=str)
@pytest.mark.parametrize('batch', [1, 3])
def test_dynamic_convolution(settings, batch, both_forms):
    module = KWConv2d(4, 8, **settings)
    x = torch.randn(batch, 4, 9, 12)
    torch.testing.assert_close(*both_forms(module, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(3, 6), (1, 6), (2, 5, 6), (2, 3, 4, 6)], ids=str)
def test_dynamic_linear(shape, both_forms):
    torch.testing.assert_close(*both_forms(KWLinear(6, 5), torch.randn(shape)), rtol=1e-4, atol=1e-5)


def test_shared_warehouse(both_forms):
    warehouse = KernelWarehouse(cell_num_ratio=0.5, sharing_range=('conv', ))
    net = nn.Sequential(KWConv2d(16, 32, 3, padding=1, warehouse=warehouse, name='conv1'), nn.BatchNorm2d(32),
                        KWConv2d(32, 32, 1, warehouse=warehouse, name='conv2'))
    warehouse.allocate(net)
    torch.testing.assert_close(*both_forms(net, torch.randn(2, 16, 7, 5)), rtol=1e-4, atol=1e-5)
