"""RoI pooling, plain and deformable."""
import itertools
import math

import pytest
import torch
from mmcv_operators import ROIS, bilinear_in_roi, mmcv, random, standard_tests, with_gradients
from torch.autograd import grad


def roi_pool_case(output_size, dtype=torch.float64, device='cpu'):
    x = random(2, 3, 10, 12, dtype=dtype, device=device)
    rois = torch.tensor([*ROIS, [0, 9., 9., 4., 4.], [1, 40., 40., 50., 50.]], dtype=dtype, device=device)
    return with_gradients(mmcv.ops.roi_pool(x, rois, output_size, 0.5), x)


def roi_pool_reference(output_size):
    x = random(2, 3, 10, 12)
    result = []
    for image, x1, y1, x2, y2 in [*ROIS, [0, 9., 9., 4., 4.], [1, 40., 40., 50., 50.]]:
        x1, y1, x2, y2 = x1 * .5, y1 * .5, (x2 + 1) * .5, (y2 + 1) * .5
        for i, j in itertools.product(*map(range, output_size)):
            rows = [r for r in range(10) if math.floor(y1 + i * (y2 - y1) / output_size[0]) <= r < math.ceil(
                y1 + (i + 1) * (y2 - y1) / output_size[0])]
            columns = [c for c in range(12) if math.floor(x1 + j * (x2 - x1) / output_size[1]) <= c < math.ceil(
                x1 + (j + 1) * (x2 - x1) / output_size[1])]
            bin_ = x[image][:, rows][:, :, columns].flatten(1)
            result.append(bin_.amax(1) if bin_.numel() and x2 > x1 and y2 > y1 else x.new_zeros(3))
    return with_gradients(torch.stack(result).view(-1, *output_size, 3).permute(0, 3, 1, 2), x)


# No point lies in the pixel beyond the border, where the slope that mmcv gives an offset is not the value's own.
INNER_ROIS = [[0, 4., 5., 17., 15.], [1, 6., 4., 14., 13.], [0, 5.2, 5.1, 9.5, 6.1], [1, 60., 60., 70., 70.]]


def deform_roi_pool_case(sampling_ratio, offsets, dtype=torch.float64, device='cpu'):
    x = random(2, 3, 10, 12, dtype=dtype, device=device)
    offset = random(4, 2, 3, 2, seed=1, dtype=dtype, device=device) if offsets else None
    rois = torch.tensor(INNER_ROIS, dtype=dtype, device=device)
    out = mmcv.ops.deform_roi_pool(x, rois, offset, (3, 2), 0.5, sampling_ratio, .1)
    return with_gradients(out, x, offset)


def deform_roi_pool_reference(sampling_ratio, offsets):
    x, result = random(2, 3, 10, 12), []
    offset = random(4, 2, 3, 2, seed=1) if offsets else None
    for k, (image, *corners) in enumerate(INNER_ROIS):
        x1, y1, x2, y2 = (corner * .5 - .5 for corner in corners)
        step = (y2 - y1) / 3, (x2 - x1) / 2
        points = [sampling_ratio or math.ceil(s) for s in step]
        for i, j in itertools.product(range(3), range(2)):
            total = x.new_zeros(3)
            for a, b in itertools.product(*map(range, points)):
                y = y1 + (i + (a + .5) / points[0]) * step[0]
                u = x1 + (j + (b + .5) / points[1]) * step[1]
                if offsets:
                    y = y + .1 * (y2 - y1) * offset[k, 1, i, j]
                    u = u + .1 * (x2 - x1) * offset[k, 0, i, j]
                total = total + bilinear_in_roi(x[image], y, u)
            result.append(total / math.prod(points))
    return with_gradients(torch.stack(result).view(4, 3, 2, 3).permute(0, 3, 1, 2), x, offset)


CASES = {
    'roi_pool': (roi_pool_case, roi_pool_reference, ((2, 3), )),
    **{f'deform_roi_pool-{r}-{"moved" if o else "still"}': (deform_roi_pool_case, deform_roi_pool_reference, (r, o))
       for r in (0, 2) for o in (True, False)},
}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(
        CASES, cuda_only=('roi_pool', 'deform_roi_pool'),
        by_median=('deform_roi_pool', ))


def test_nothing_in_nothing_out(bridged):
    x, rois = random(1, 2, 4, 4, dtype=torch.float32), torch.zeros(0, 5)
    for out in (mmcv.ops.roi_pool(x, rois, (2, 2)), mmcv.ops.deform_roi_pool(x, rois, torch.zeros(0, 2, 2, 2), (2, 2)),
                mmcv.ops.deform_roi_pool(x, rois, None, (2, 2))):
        assert out.shape == (0, 2, 2, 2)
        assert torch.equal(grad(out.sum(), x)[0], torch.zeros_like(x))


def test_bad_input(bridged):
    x, rois = torch.rand(2, 1, 4, 4), torch.tensor([[-1, 0., 0., 1., 1.]])
    with pytest.raises(ValueError, match='roi_pool: the first column of rois'):
        mmcv.ops.roi_pool(x, rois, (2, 2))
    with pytest.raises(ValueError, match='deform_roi_pool: the first column of rois'):
        mmcv.ops.deform_roi_pool(x, rois, None, (2, 2))
    with pytest.raises(ValueError, match=r'offset must have shape \(1, 2, 2, 2\), got \(1, 2, 3, 3\)'):
        mmcv.ops.deform_roi_pool(x, -rois, torch.zeros(1, 2, 3, 3), (2, 2))
