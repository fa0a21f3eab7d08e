"""Multi-scale deformable attention."""
import itertools
import sys

import torch
from mmcv_operators import bilinear, mmcv, random, standard_tests, with_gradients


def ms_deform_attn_tensors(dtype=torch.float64, device='cpu'):
    make = dict(dtype=dtype, device=device)
    value = random(2, 4 * 5 + 2 * 3, 2, 3, **make)
    locations = (random(2, 4, 2, 2, 3, 2, seed=1, **make).detach() * .4 + .5).requires_grad_()
    return value, locations, random(2, 4, 2, 2, 3, seed=2, **make)


def ms_deform_attn_case(dtype=torch.float64, device='cpu'):
    value, locations, weights = ms_deform_attn_tensors(dtype, device)
    shapes, starts = torch.tensor([[4, 5], [2, 3]], device=device), torch.tensor([0, 20], device=device)
    function = sys.modules['mmcv.ops.multi_scale_deform_attn'].MultiScaleDeformableAttnFunction
    return with_gradients(function.apply(value, shapes, starts, locations, weights, 64), value, locations, weights)


def ms_deform_attn_reference():
    value, locations, weights = ms_deform_attn_tensors()
    result = []
    for n, q, h in itertools.product(range(2), range(4), range(2)):
        total = 0
        for level, (start, height, width) in enumerate([(0, 4, 5), (20, 2, 3)]):
            plane = value[n, start:start + height * width, h].T.reshape(3, height, width)
            for point in range(3):
                u, y = locations[n, q, h, level, point]
                total = total + weights[n, q, h, level, point] * bilinear(plane, y * height - .5, u * width - .5)
        result.append(total)
    return with_gradients(torch.stack(result).view(2, 4, 6), value, locations, weights)


CASES = {'ms_deform_attn': (ms_deform_attn_case, ms_deform_attn_reference, ())}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, cuda_only=('ms_deform_attn', ), by_value=('ms_deform_attn', ))


def test_multi_scale_deformable_attention_module():
    torch.manual_seed(0)
    layer = mmcv.ops.MultiScaleDeformableAttention(8, 2, 2, 3, batch_first=True, dropout=0.)
    out = layer(random(2, 4, 8, dtype=torch.float32), value=random(2, 26, 8, seed=1, dtype=torch.float32),
                reference_points=torch.rand(2, 4, 2, 2), spatial_shapes=torch.tensor([[4, 5], [2, 3]]),
                level_start_index=torch.tensor([0, 20]))
    out.sum().backward()
    assert out.shape == (2, 4, 8) and layer.value_proj.weight.grad.abs().sum() > 0


def test_a_point_that_samples_nothing_has_no_slope(bridged):
    """As in mmcv's kernels, at positions of exactly -1 and of the map's size as well as farther out."""
    value, weights = random(1, 12, 1, 2), random(1, 1, 1, 1, 6, seed=2)
    # x runs over -2, -1, -.5, 2.5, 3 and 4 on a row of a 4 by 3 map.
    x = (torch.tensor([-2, -1, -.5, 2.5, 3, 4], dtype=torch.float64) + .5) / 3
    locations = torch.stack((x, torch.full_like(x, 1.75 / 4)), 1)[None, None, None, None].requires_grad_()
    function = sys.modules['mmcv.ops.multi_scale_deform_attn'].MultiScaleDeformableAttnFunction
    out = function.apply(value, torch.tensor([[4, 3]]), torch.tensor([0]), locations, weights, 64)
    _, slope = with_gradients(out, locations)
    assert (slope[..., [0, 1, 4, 5], :] == 0).all() and (slope[..., [2, 3], :] != 0).all()
