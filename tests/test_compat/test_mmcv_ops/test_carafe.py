"""CARAFE, fast and naive."""
import itertools

import pytest
import torch
from mmcv_operators import mmcv, random, standard_tests, with_gradients

from plugconv_mm.compat import mmcv_ops

SETTINGS = {'plain': (3, 1, 2), 'grouped': (5, 2, 2), 'same size': (3, 4, 1), 'pixels': (1, 1, 3)}


def tensors(setting, dtype, device):
    kernel, groups, scale = SETTINGS[setting]
    make = dict(dtype=dtype, device=device)
    return random(2, 4, 3, 4, **make), random(2, groups * kernel**2, 3 * scale, 4 * scale, seed=1, **make)


def carafe_case(setting, dtype=torch.float64, device='cpu'):
    features, masks = tensors(setting, dtype, device)
    return with_gradients(mmcv.ops.carafe(features, masks, *SETTINGS[setting]), features, masks)


def carafe_naive_case(setting, dtype=torch.float64, device='cpu'):
    """The gradients by the compiled function, as mmcv's Python side calls it for CUDA tensors alone."""
    features, masks = tensors(setting, dtype, device)
    out = mmcv.ops.carafe_naive(features, masks, *SETTINGS[setting]).detach()
    cotangent = random(*out.shape, seed=99, dtype=dtype, device=device, grad=False)
    slopes = torch.zeros_like(features), torch.zeros_like(masks)
    with torch.no_grad():
        mmcv_ops.carafe_naive_backward(cotangent, features, masks, *slopes, *SETTINGS[setting])
    return [out, *(slope.detach() for slope in slopes)]


def carafe_reference(setting):
    kernel, groups, scale = SETTINGS[setting]
    features, masks = tensors(setting, torch.float64, 'cpu')
    rows = []
    for n, c, y, x in itertools.product(range(2), range(4), range(3 * scale), range(4 * scale)):
        total = features.new_zeros(())
        for a, b in itertools.product(range(kernel), repeat=2):
            row, column = y // scale + a - kernel // 2, x // scale + b - kernel // 2
            if 0 <= row < 3 and 0 <= column < 4:
                channel = (c // (4 // groups) * kernel + a) * kernel + b
                total = total + features[n, c, row, column] * masks[n, channel, y, x]
        rows.append(total)
    return with_gradients(torch.stack(rows).view(2, 4, 3 * scale, 4 * scale), features, masks)


CASES = {f'{name}-{s}': (case, carafe_reference, (s, ))
         for name, case in (('carafe', carafe_case), ('carafe_naive', carafe_naive_case)) for s in SETTINGS}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, cuda_only=('carafe', ))


def test_the_layer_trains(bridged):
    layer = mmcv.ops.CARAFEPack(8, 2, up_kernel=5, compressed_channels=4)
    x = random(1, 8, 4, 4, dtype=torch.float32)
    out, slope = with_gradients(layer(x), x)
    assert out.shape == (1, 8, 8, 8) and slope.isfinite().all() and slope.abs().sum() > 0
    # Kernels that sum to 1 leave a constant map alone where no border is near.
    torch.testing.assert_close(layer(torch.ones(1, 8, 8, 8))[..., 4:-4, 4:-4], torch.ones(1, 8, 8, 8))


def test_nothing_in_nothing_out(bridged):
    features, masks = torch.zeros(0, 4, 3, 3, requires_grad=True), torch.zeros(0, 9, 6, 6, requires_grad=True)
    out, *slopes = with_gradients(mmcv.ops.carafe(features, masks, 3, 1, 2), features, masks)
    assert out.shape == (0, 4, 6, 6) and [slope.shape for slope in slopes] == [features.shape, masks.shape]


def test_bad_input(bridged):
    features, masks, out = torch.rand(1, 4, 3, 3), torch.rand(1, 9, 6, 6), torch.rand(1, 4, 6, 6)
    with pytest.raises(ValueError, match=r'carafe: masks must have shape \(1, 25, 6, 6\), got \(1, 9, 6, 6\)'):
        mmcv_ops.carafe_naive_forward(features, masks, out, 5, 1, 2)
    with pytest.raises(TypeError, match='carafe: features must be a floating-point tensor'):
        mmcv_ops.carafe_naive_forward(features.long(), masks, out, 3, 1, 2)
