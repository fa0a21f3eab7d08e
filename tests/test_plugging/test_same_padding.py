"""Arguments of convolutions that keep the size of a map."""
import pytest
import torch
from torch import nn

from plugconv_mm.plugging.same_padding import check_same_padding


@pytest.mark.parametrize('kernel_size', [1, 2, 3, (3, 5), (4, 1)])
@pytest.mark.parametrize('padding', [0, 1, 2, (1, 2), (2, 1)])
@pytest.mark.parametrize('stride', [1, 2, (1, 2)])
@pytest.mark.parametrize('dilation', [1, 2])
def test_it_agrees_with_a_convolution(kernel_size, padding, stride, dilation):
    x = torch.rand(1, 1, 13, 17)
    keeps = nn.Conv2d(1, 1, kernel_size, stride, padding, dilation)(x).shape == x.shape
    if keeps:
        kernel, pads = check_same_padding('X', kernel_size, stride, padding, dilation)
        conv = nn.Conv2d(1, 1, kernel_size, stride, padding, dilation)
        assert (kernel, pads) == (conv.kernel_size, conv.padding)
    else:
        with pytest.raises(ValueError, match='^X gives a map of the size of its input'):
            check_same_padding('X', kernel_size, stride, padding, dilation)


@pytest.mark.parametrize('padding', [None, 'same'])
def test_half_of_the_dilated_kernel(padding):
    assert check_same_padding('X', (3, 5), 1, padding, 2) == ((3, 5), (2, 4))
    assert check_same_padding('X', 1, 1, 'valid', 1) == ((1, 1), (0, 0))
    with pytest.raises(ValueError, match='padding=valid'):
        check_same_padding('X', 3, 1, 'valid', 1)
