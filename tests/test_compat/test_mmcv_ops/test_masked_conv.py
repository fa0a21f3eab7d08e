"""Masked convolution."""
import pytest
import torch
from mmcv_operators import mmcv, random, standard_tests

from plugconv_mm.compat import mmcv_ops

SETTINGS = {'padded': ((3, 3), 1), 'uneven': ((3, 5), (1, 2)), 'pixels': ((1, 1), 0)}


def tensors(setting, dtype, device):
    make = dict(dtype=dtype, device=device, grad=False)
    mask = (random(1, 5, 6, seed=5, grad=False) > .3).to(device)
    return random(1, 4, 5, 6, **make), mask, random(3, 4, *SETTINGS[setting][0], seed=1, **make), random(3, seed=2,
                                                                                                         **make)


def masked_conv_case(setting, dtype=torch.float64, device='cpu'):
    return [mmcv.ops.masked_conv2d(*tensors(setting, dtype, device), SETTINGS[setting][1])]


def masked_conv_reference(setting):
    x, mask, weight, bias = tensors(setting, torch.float64, 'cpu')
    return [torch.nn.functional.conv2d(x, weight, bias, padding=SETTINGS[setting][1]) * mask[:, None]]


CASES = {f'masked_conv-{s}': (masked_conv_case, masked_conv_reference, (s, )) for s in SETTINGS}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, cuda_only=('masked_conv', ), by_value=('masked_conv', ))


def test_columns_beyond_a_map_that_is_not_padded():
    """With less padding than the kernel reaches, the windows of the last pixels end beyond the map, in zeros."""
    x, place = random(1, 2, 3, 3, grad=False), torch.tensor([2])
    columns = torch.full((2 * 9, 1), 7.).double()
    mmcv_ops.masked_im2col_forward(x, place, place, columns, 3, 3, 0, 0)
    expected = torch.zeros(2, 9, 1).double()
    expected[:, 0, 0] = x[0, :, 2, 2]
    assert torch.equal(columns, expected.view(18, 1))


def test_nothing_chosen_nothing_computed(bridged):
    out = mmcv.ops.masked_conv2d(torch.rand(1, 2, 4, 4), torch.zeros(1, 4, 4), torch.rand(3, 2, 3, 3), torch.rand(3), 1)
    assert torch.equal(out, torch.zeros(1, 3, 4, 4))


def test_bad_input():
    place, x = torch.tensor([1]), torch.rand(1, 2, 4, 4)
    with pytest.raises(ValueError, match=r'masked_im2col: col must have shape \(18, 1\), got \(9, 1\)'):
        mmcv_ops.masked_im2col_forward(x, place, place, torch.rand(9, 1), 3, 3, 1, 1)
    with pytest.raises(ValueError, match=r'masked_im2col: im must have shape \(1, \*, \*, \*\), got \(2, 2, 4, 4\)'):
        mmcv_ops.masked_im2col_forward(torch.rand(2, 2, 4, 4), place, place, torch.rand(18, 1), 3, 3, 1, 1)
    with pytest.raises(ValueError, match=r'masked_col2im: col must have shape \(2, 1\)'):
        mmcv_ops.masked_col2im_forward(torch.rand(3, 1), place, place, x, 4, 4, 2)
