"""RoIAlign: averages and maxima."""
import itertools
import math

import pytest
import torch
from mmcv_operators import ROIS, bilinear_in_roi, mmcv, random, standard_tests, with_gradients
from torch.autograd import grad


def roi_align_case(output_size, sampling_ratio, mode, aligned, dtype=torch.float64, device='cpu'):
    x = random(2, 3, 10, 12, dtype=dtype, device=device)
    rois = torch.tensor(ROIS, dtype=dtype, device=device)
    return with_gradients(mmcv.ops.roi_align(x, rois, output_size, 0.5, sampling_ratio, mode, aligned), x)


def roi_align_reference(output_size, sampling_ratio, mode, aligned):
    x = random(2, 3, 10, 12)
    result = []
    for image, *corners in ROIS:
        x1, y1, x2, y2 = (corner * 0.5 - 0.5 * aligned for corner in corners)
        extent = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
        step = [e / n for e, n in zip(extent, output_size, strict=True)]
        points = [sampling_ratio or math.ceil(s) for s in step]
        for i, j in itertools.product(*map(range, output_size)):
            values = [x.new_zeros(3)] if mode == 'avg' else []
            for a, b in itertools.product(*map(range, points)):
                y = y1 + (i + (a + .5) / points[0]) * step[0]
                u = x1 + (j + (b + .5) / points[1]) * step[1]
                values.append(bilinear_in_roi(x[image], y, u) + x.new_zeros(3))
            values = torch.stack(values)
            result.append(values.sum(0) / math.prod(points) if mode == 'avg' else values.max(0).values)
    return with_gradients(torch.stack(result).view(len(ROIS), *output_size, 3).permute(0, 3, 1, 2), x)


CASES = {f'roi_align-{m}-{r}-{"aligned" if a else "legacy"}': (roi_align_case, roi_align_reference, ((3, 2), r, m, a))
         for m in ('avg', 'max') for r in (0, 2) for a in (True, False)}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, by_median=('roi_align-max', ))


def test_roi_align_is_not_changed_by_autocast(bridged):
    x, rois = random(2, 3, 10, 12, dtype=torch.bfloat16), torch.tensor(ROIS)
    with torch.autocast('cpu', torch.bfloat16):
        out = mmcv.ops.roi_align(x, rois, (3, 2), 0.5)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), mmcv.ops.roi_align(x.float(), rois, (3, 2), 0.5), rtol=1e-2, atol=1e-2)


def test_maximum_of_no_points_is_zero_without_gradient(bridged):
    x, rois = random(1, 2, 4, 4), torch.tensor([[0, 1., 1., 1., 1.], [0, 0., 0., 4., 4.]], dtype=torch.float64)
    out = mmcv.ops.roi_align(x, rois, (2, 2), 1., 0, 'max', True)
    assert (out[0] == 0).all() and (out[1] != 0).all()
    assert torch.equal(grad(out[0].sum(), x)[0], torch.zeros_like(x))


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_nothing_in_nothing_out(mode, bridged):
    x = random(1, 2, 4, 4, dtype=torch.float32)
    out = mmcv.ops.roi_align(x, torch.zeros(0, 5), (2, 2), 1., 0, mode)
    assert out.shape == (0, 2, 2, 2) and torch.equal(grad(out.sum(), x)[0], torch.zeros_like(x))
    empty = torch.zeros(0, 2, 4, 4, requires_grad=True)
    out = mmcv.ops.roi_align(empty, torch.zeros(0, 5), (2, 2), 1., 0, mode)
    assert out.shape == (0, 2, 2, 2) and grad(out.sum(), empty)[0].shape == empty.shape


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_bad_input(mode, bridged):
    rois = torch.tensor([[2, 0., 0., 1., 1.]])
    with pytest.raises(ValueError, match='roi_align: the first column of rois .* image, 0 to 1 .* from 2 to 2'):
        mmcv.ops.roi_align(torch.rand(2, 1, 4, 4), rois, (2, 2), 1., 0, mode)
    with pytest.raises(TypeError, match='roi_align: rois must be a floating-point tensor'):
        mmcv.ops.roi_align(torch.rand(3, 1, 4, 4), rois.long(), (2, 2), 1., 0, mode)
