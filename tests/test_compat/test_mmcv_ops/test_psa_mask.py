"""Attention masks of PSANet."""
import itertools

import pytest
import torch
from mmcv_operators import mmcv, random, standard_tests, with_gradients

from plugconv_mm.compat import mmcv_ops


def psa_mask_case(kind, size, dtype=torch.float64, device='cpu'):
    x = random(2, size[0] * size[1], 4, 3, dtype=dtype, device=device)
    return with_gradients(mmcv.ops.PSAMask(kind, size)(x), x)


def psa_mask_reference(kind, size):
    x = random(2, size[0] * size[1], 4, 3)
    place = torch.zeros(12, 12, 12 * size[0] * size[1], dtype=torch.float64)  # (channel, pixel, entry of a mask)
    for (h, w), (i, j) in itertools.product(itertools.product(range(4), range(3)),
                                            itertools.product(*map(range, size))):
        y, u = h + i - (size[0] - 1) // 2, w + j - (size[1] - 1) // 2
        if 0 <= y < 4 and 0 <= u < 3:
            own, other = h * 3 + w, y * 3 + u
            channel, pixel = (other, own) if kind == 'collect' else (own, other)
            place[channel, pixel, (i * size[1] + j) * 12 + own] = 1
    return with_gradients(torch.einsum('cpe,ne->ncp', place, x.flatten(1)).view(2, 12, 4, 3), x)


CASES = {f'psa_mask-{k}-{"x".join(map(str, s))}': (psa_mask_case, psa_mask_reference, (k, s))
         for k in ('collect', 'distribute') for s in ((7, 5), (3, 3), (4, 9))}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES)


def test_nothing_in_nothing_out(bridged):
    x = torch.zeros(0, 9, 4, 3, requires_grad=True)
    out, slope = with_gradients(mmcv.ops.PSAMask('collect', (3, 3))(x), x)
    assert out.shape == (0, 12, 4, 3) and slope.shape == x.shape


def test_bad_input():
    with pytest.raises(ValueError, match=r'psamask: input must have shape \(1, 9, 4, 3\), got \(1, 8, 4, 3\)'):
        mmcv_ops.psamask_forward(torch.rand(1, 8, 4, 3), torch.rand(1, 12, 4, 3), 0, 1, 4, 3, 3, 3, 1, 1)
