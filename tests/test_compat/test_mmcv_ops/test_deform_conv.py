"""Deformable convolution, plain and modulated."""
import itertools
import math

import pytest
import torch
from mmcv_operators import bilinear, mmcv, random, standard_tests, with_gradients
from torch.autograd import grad, gradcheck

from plugconv_mm.compat import mmcv_ops

DEFORM = {
    'plain': dict(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, deform_groups=1),
    'grouped': dict(kernel=(3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=4),
    'depthwise': dict(kernel=(1, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=4, deform_groups=2),
}


def deform_tensors(setting, dtype=torch.float64, device='cpu', modulated=True, bias=True):
    s = DEFORM[setting]
    out = [(n + 2 * p - d * (k - 1) - 1) // t + 1
           for n, p, d, k, t in zip((5, 6), s['padding'], s['dilation'], s['kernel'], s['stride'], strict=True)]
    taps = math.prod(s['kernel']) * s['deform_groups']
    make = dict(dtype=dtype, device=device)
    return (random(2, 4, 5, 6, **make), random(2, 2 * taps, *out, seed=1, **make),
            random(2, taps, *out, seed=2, **make) if modulated else None,
            random(8, 4 // s['groups'], *s['kernel'], seed=3, **make), random(8, seed=4, **make) if bias else None)


def deform_conv_case(setting, dtype=torch.float64, device='cpu'):
    s = DEFORM[setting]
    x, offset, _, weight, _ = deform_tensors(setting, dtype, device, modulated=False, bias=False)
    out = mmcv.ops.deform_conv2d(x, offset, weight, s['stride'], s['padding'], s['dilation'], s['groups'],
                                 s['deform_groups'])
    return with_gradients(out, x, offset, weight)


def modulated_deform_conv_case(setting, bias, dtype=torch.float64, device='cpu'):
    s = DEFORM[setting]
    x, offset, mask, weight, bias = deform_tensors(setting, dtype, device, bias=bias)
    out = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, s['stride'], s['padding'], s['dilation'],
                                           s['groups'], s['deform_groups'])
    return with_gradients(out, x, offset, mask, weight, bias)


def deform_conv_reference(setting, modulated=False, bias=False):
    s = DEFORM[setting]
    x, offset, mask, weight, bias = deform_tensors(setting, modulated=modulated, bias=bias)
    (kernel_h, kernel_w), (out_h, out_w) = s['kernel'], offset.shape[2:]
    per_deform, per_group = 4 // s['deform_groups'], 4 // s['groups']
    result = []
    for n, i, j in itertools.product(range(2), range(out_h), range(out_w)):
        columns = []  # the sampled input of each tap, (C, )
        for tap, (a, b) in enumerate(itertools.product(range(kernel_h), range(kernel_w))):
            parts = []
            for d in range(s['deform_groups']):
                channel = d * kernel_h * kernel_w + tap
                y = i * s['stride'][0] - s['padding'][0] + a * s['dilation'][0] + offset[n, 2 * channel, i, j]
                u = j * s['stride'][1] - s['padding'][1] + b * s['dilation'][1] + offset[n, 2 * channel + 1, i, j]
                plane = x[n, d * per_deform:(d + 1) * per_deform]
                # One pixel beyond the border nothing pulls at a position, though its slope has a limit.
                within = -1 < y < plane.size(1) and -1 < u < plane.size(2)
                part = bilinear(plane, y, u) if within else plane.new_zeros(per_deform)
                parts.append(part * mask[n, channel, i, j] if modulated else part)
            columns.append(torch.cat(parts))
        columns = torch.stack(columns, 1).view(s['groups'], per_group, kernel_h * kernel_w)
        kernels = weight.view(s['groups'], -1, per_group, kernel_h * kernel_w)
        pixel = torch.einsum('gct,gkct->gk', columns, kernels).flatten()
        result.append(pixel if bias is None else pixel + bias)
    out = torch.stack(result).view(2, out_h, out_w, 8).permute(0, 3, 1, 2)
    return with_gradients(out, x, offset, mask, weight, bias)


CASES = {
    **{f'deform_conv-{s}': (deform_conv_case, deform_conv_reference, (s, )) for s in DEFORM},
    **{f'modulated_deform_conv-{s}-{"bias" if b else "nobias"}': (
        modulated_deform_conv_case, lambda s, b: deform_conv_reference(s, True, b), (s, b))
       for s, b in [('plain', True), ('plain', False), ('grouped', True), ('depthwise', False)]},
}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, by_median=('deform', 'modulated'))


def convolve(modulated, offset, size=(4, 5)):
    """A 3 by 3 convolution with padding 1 of two channels, of these offsets; returns its inputs, too."""
    x, weight = random(1, 2, *size), random(3, 2, 3, 3, seed=3)
    if not modulated:
        return mmcv.ops.deform_conv2d(x, offset, weight, 1, 1), x, weight
    mask = random(1, 9, *size, seed=2)
    return mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1), x, weight, mask


def plain_convolve(offset, x, weight, mask=None):
    _, _, height, width = x.shape
    out = 0 * (offset.sum() + x.sum() + weight.sum() + (0 if mask is None else mask.sum())) + x.new_zeros(
        1, 3, height, width)
    for i, j, tap in itertools.product(range(height), range(width), range(9)):
        a, b = divmod(tap, 3)
        y = i - 1 + a + offset[0, 2 * tap, i, j]
        u = j - 1 + b + offset[0, 2 * tap + 1, i, j]
        if -1 < y < height and -1 < u < width:
            value = weight[:, :, a, b] @ bilinear(x[0], y, u) * (1 if mask is None else mask[0, tap, i, j])
            out = out + torch.nn.functional.one_hot(torch.tensor(i * width + j), height * width).view(
                height, width) * value[:, None, None]
    return out


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('shift', [(0, 0), (-1, 0), (0, -1), (1, 1), (0, 1), (3, -2), (-6, 6), (.5, -.5)])
def test_gradients_at_the_borders(modulated, shift, bridged):
    """Positions of exactly -1 and of the height or width have no slope; offsets of 0 with padding are all there."""
    offset = torch.tensor(shift * 9, dtype=torch.float64)[None, :, None, None].repeat(1, 1, 4, 5).requires_grad_()
    out, *inputs = convolve(modulated, offset)
    expected = with_gradients(plain_convolve(offset, *inputs), offset, *inputs)
    for got, want in zip(with_gradients(out, offset, *inputs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('modulated', [False, True])
def test_gradients_are_those_of_finite_differences(modulated, bridged):
    # Offsets of a third stay off the pixels, where the slope jumps.
    offset = (random(1, 18, 3, 3, seed=1, grad=False).sign() / 3).requires_grad_()
    _, *inputs = convolve(modulated, offset, size=(3, 3))
    if modulated:
        def function(o, x, w, m):
            return mmcv.ops.modulated_deform_conv2d(x, o, m, w, None, 1, 1)
    else:
        def function(o, x, w):
            return mmcv.ops.deform_conv2d(x, o, w, 1, 1)
    assert gradcheck(function, (offset, *inputs))


def test_infinite_offsets_sample_nothing(bridged):
    offset = torch.full((1, 18, 4, 5), math.inf, dtype=torch.float64, requires_grad=True)
    out, x, weight = convolve(False, offset)
    for value in with_gradients(out, offset, x, weight):
        assert torch.equal(value, torch.zeros_like(value))


def test_offsets_of_a_larger_map_are_read_as_flat_memory(bridged):
    """As mmcv's kernels read DyHead's: the first numbers of each sample, whatever the map's height and width."""
    x, weight, bias = random(2, 4, 3, 4), random(5, 4, 3, 3, seed=3), random(5, seed=4)
    offset, mask = random(2, 18, 6, 8, seed=1), random(2, 9, 6, 8, seed=2)
    read_offset, read_mask = (torch.stack([sample.flatten()[:channels * 12].view(channels, 3, 4) for sample in tensor])
                              for tensor, channels in ((offset, 18), (mask, 9)))
    results = [with_gradients(mmcv.ops.modulated_deform_conv2d(x, o, m, weight, bias, 1, 1), x, offset, mask, weight,
                              bias) for o, m in ((offset, mask), (read_offset, read_mask))]
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)
    assert (results[0][2].flatten(1)[:, 18 * 12:] == 0).all() and (results[0][2].flatten(1)[:, :18 * 12] != 0).any()
    half = [t.detach().half() for t in (x, offset, mask, weight, bias)]
    assert mmcv.ops.modulated_deform_conv2d(*half, 1, 1).dtype == torch.float16


def test_nothing_in_nothing_out():
    """Of the compiled functions alone; mmcv's Python side rejects an empty batch itself."""
    x, offset, mask = torch.zeros(0, 4, 6, 6), torch.zeros(0, 18, 3, 3), torch.zeros(0, 9, 3, 3)
    weight, bias, out, none = torch.rand(8, 4, 3, 3), torch.rand(8), torch.empty(0, 8, 3, 3), torch.empty(0)
    mmcv_ops.deform_conv_forward(x, weight, offset, out, none, none, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1)
    geometry = (3, 3, 2, 2, 1, 1, 1, 1, 1, 1, True)
    mmcv_ops.modulated_deform_conv_forward(x, weight, bias, none, offset, mask, out, none, *geometry)
    slopes = [torch.full_like(tensor, 7) for tensor in (x, weight, bias, offset, mask)]
    mmcv_ops.modulated_deform_conv_backward(x, weight, bias, none, offset, mask, none, *slopes, out, *geometry)
    assert all((slope == 0).all() for slope in slopes)


def test_deformable_layers_train_under_autocast(bridged):
    for layer in (mmcv.ops.DeformConv2dPack(4, 8, 3, padding=1, deform_groups=2),
                  mmcv.ops.ModulatedDeformConv2dPack(4, 8, 3, padding=1, bias=False)):
        x = random(2, 4, 6, 6, dtype=torch.float32)
        with torch.autocast('cpu', torch.bfloat16):
            out = layer(x)
        out.float().sum().backward()
        expected = torch.nn.functional.conv2d(x, layer.weight, padding=1)  # the offsets start at 0
        scale = .5 if isinstance(layer, mmcv.ops.ModulatedDeformConv2dPack) else 1.
        torch.testing.assert_close(out.float(), expected * scale, rtol=5e-2, atol=5e-2)
        assert layer.conv_offset.weight.grad.abs().sum() > 0


def test_gradients_of_a_graph_used_twice(bridged):
    x, offset, _, weight, _ = deform_tensors('plain', modulated=False, bias=False)
    out = mmcv.ops.deform_conv2d(x, offset, weight, 1, 1)
    first, second, again = (grad((out * k).sum(), (x, offset, weight), retain_graph=True) for k in (1, 2, 1))
    only_weight, = grad(mmcv.ops.deform_conv2d(x.detach(), offset.detach(), weight, 1, 1).sum(), weight)
    for a, b, c in zip(first, second, again, strict=True):
        torch.testing.assert_close(2 * a, b)
        torch.testing.assert_close(a, c)
    torch.testing.assert_close(only_weight, first[2])


def call_modulated(x=(1, 4, 5, 5), offset=(1, 18, 5, 5), mask=(1, 9, 5, 5), weight=(2, 4, 3, 3), bias=(2, ), groups=1):
    return lambda: mmcv.ops.modulated_deform_conv2d(*map(torch.rand, (x, offset, mask, weight, bias)), 1, 1, 1, groups)


@pytest.mark.parametrize('call, message', [
    (call_modulated(weight=(2, 3, 3, 3)), 'does not fit an input with 4 channels'),
    (call_modulated(weight=(3, 2, 3, 3), bias=(3, ), groups=2), 'groups=2'),
    (call_modulated(offset=(1, 16, 5, 5)), r'offset must have shape \(1, 18, 5, 5\), got \(1, 16, 5, 5\)'),
    (call_modulated(offset=(1, 18, 4, 5)), r'offset must have shape \(1, 18, 5, 5\), got \(1, 18, 4, 5\)'),
    (call_modulated(offset=(2, 18, 9, 9)), r'offset must have shape \(1, 18, 5, 5\)'),
    (call_modulated(mask=(1, 9, 4, 5)), r'mask must have shape \(1, 9, 5, 5\)'),
    (call_modulated(bias=(3, )), r'bias must have shape \(2\), got \(3,\)'),
    (lambda: mmcv.ops.deform_conv2d(torch.rand(1, 4, 5, 5), torch.rand(1, 18, 6, 6), torch.rand(2, 4, 3, 3), 1, 1),
     r'deform_conv: offset must have shape \(1, 18, 5, 5\), got \(1, 18, 6, 6\)'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_bad_input(call, message, bridged):
    with pytest.raises(ValueError, match=message):
        call()
