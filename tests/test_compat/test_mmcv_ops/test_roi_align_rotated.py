"""RoIAlign of rotated boxes."""
import itertools
import math

import pytest
import torch
from mmcv_operators import bilinear_in_roi, mmcv, random, standard_tests, with_gradients
from torch.autograd import grad

# Inside, across the border, without area, beyond the map, and on the second image.
ROTATED = [[0, 9., 8., 10., 6., .4], [1, 2., 3., 15., 8., -1.2], [0, 5., 5., 0., 3., 2.], [1, 90., 90., 9., 9., 0.],
           [1, 12., 10., 20., 18., math.pi / 2]]


def roi_align_rotated_case(sampling_ratio, aligned, clockwise, dtype=torch.float64, device='cpu'):
    x = random(2, 3, 10, 12, dtype=dtype, device=device)
    rois = torch.tensor(ROTATED, dtype=dtype, device=device)
    return with_gradients(mmcv.ops.roi_align_rotated(x, rois, (3, 2), 0.5, sampling_ratio, aligned, clockwise), x)


def roi_align_rotated_reference(sampling_ratio, aligned, clockwise):
    x, result = random(2, 3, 10, 12), []
    for image, u, v, width, height, angle in ROTATED:
        u, v = (center * .5 - .5 * aligned for center in (u, v))
        width, height = (extent * .5 if aligned else max(extent * .5, 1) for extent in (width, height))
        angle = -angle if clockwise else angle
        points = [sampling_ratio or math.ceil(e / n) for e, n in ((height, 3), (width, 2))]
        for i, j in itertools.product(range(3), range(2)):
            total = x.new_zeros(3)
            for a, b in itertools.product(*map(range, points)):
                down = ((i + (a + .5) / points[0]) / 3 - .5) * height
                right = ((j + (b + .5) / points[1]) / 2 - .5) * width
                total = total + bilinear_in_roi(x[image], v + down * math.cos(angle) - right * math.sin(angle),
                                                u + down * math.sin(angle) + right * math.cos(angle))
            result.append(total / max(math.prod(points), 1))
    return with_gradients(torch.stack(result).view(-1, 3, 2, 3).permute(0, 3, 1, 2), x)


CASES = {f'roi_align_rotated-{r}-{"aligned" if a else "legacy"}-{"cw" if c else "ccw"}': (
    roi_align_rotated_case, roi_align_rotated_reference, (r, a, c))
    for r, a, c in [(0, True, False), (2, True, True), (0, False, True), (1, False, False)]}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, by_median=('roi_align_rotated', ))


def test_without_rotation_it_is_roi_align(bridged):
    x, boxes = random(1, 2, 8, 8), torch.tensor([[0, 4., 3., 6., 4., 0.]], dtype=torch.float64)
    corners = torch.tensor([[0, 1., 1., 7., 5.]], dtype=torch.float64)
    torch.testing.assert_close(mmcv.ops.roi_align_rotated(x, boxes, (3, 3), 1., 2, True),
                               mmcv.ops.roi_align(x, corners, (3, 3), 1., 2, 'avg', True))


def test_nothing_in_nothing_out(bridged):
    x = random(1, 2, 4, 4, dtype=torch.float32)
    out = mmcv.ops.roi_align_rotated(x, torch.zeros(0, 6), (2, 2), 1.)
    assert out.shape == (0, 2, 2, 2) and torch.equal(grad(out.sum(), x)[0], torch.zeros_like(x))


def test_bad_input(bridged):
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match='roi_align_rotated: the first column of rois .* image, 0 to 1'):
        mmcv.ops.roi_align_rotated(x, torch.tensor([[2, 1., 1., 2., 2., 0.]]), (2, 2), 1.)
    with pytest.raises(ValueError, match=r'rois must have shape \(\*, 6\), got \(3, 5\)'):
        mmcv.ops.roi_align_rotated(x, torch.rand(3, 5), (2, 2), 1.)
