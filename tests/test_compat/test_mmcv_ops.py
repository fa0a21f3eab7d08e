"""mmcv's operators on torchvision, held against plain formulations and against mmcv's compiled ones.

Each case calls an operator the way users do, through ``mmcv.ops``, and returns everything that comes out of it:
values first, then the gradients with respect to every input that has one.
"""
import importlib
import importlib.machinery
import importlib.util
import itertools
import math
import sys
import warnings

import pytest
import torch
from torch.autograd import grad

from plugconv_mm.compat import bridge, mmcv_ops

mmcv = pytest.importorskip('mmcv', reason='the bridge serves mmcv')
importlib.import_module('mmcv.ops')

MODULES = [sys.modules[f'mmcv.ops.{name}'] for name in ('nms', 'roi_align', 'roi_pool', 'focal_loss', 'deform_conv',
                                                        'modulated_deform_conv', 'multi_scale_deform_attn')]


def use(monkeypatch, extension):
    """Let mmcv.ops call the functions of ``extension``, whatever it found when it was imported."""
    for module in MODULES:
        monkeypatch.setattr(module, 'ext_module', extension)


@pytest.fixture
def bridged(monkeypatch):
    use(monkeypatch, mmcv_ops)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0, dtype=torch.float64, device='cpu', grad=True):
    value = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    return value.to(device, dtype).requires_grad_(grad)


def random_boxes(count, seed=0, dtype=torch.float64, device='cpu', size=20.):
    g = generator(seed)
    corners = torch.rand(count, 2, generator=g, dtype=torch.float64) * size * .6
    extents = torch.rand(count, 2, generator=g, dtype=torch.float64) * size * .6 + .5
    scores = torch.rand(count, generator=g, dtype=torch.float64)
    return torch.cat((corners, corners + extents), 1).to(device, dtype), scores.to(device, dtype)


def with_gradients(output, *inputs):
    """The output and the gradients of a fixed random combination of its entries."""
    cotangent = random(*output.shape, seed=99, dtype=output.dtype, device=output.device, grad=False)
    return [output.detach(), *grad(output, [i for i in inputs if i is not None], cotangent)]


def overlap(a, b, offset):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def bilinear(plane, y, x):
    """A value between the pixels of (C, H, W), where pixels beyond the border are 0."""
    height, width = plane.shape[1:]
    total = plane.new_zeros(plane.shape[0])
    top, left = math.floor(float(y)), math.floor(float(x))
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                total = total + (1 - abs(y - row)) * (1 - abs(x - column)) * plane[:, row, column]
    return total


# -------------------------------------------------------------------------------------------- non-maximum suppression
def nms_case(offset, threshold, dtype=torch.float64, device='cpu'):
    boxes, scores = random_boxes(60, dtype=dtype, device=device)
    return list(mmcv.ops.nms(boxes, scores, threshold, offset=offset))


def nms_reference(offset, threshold):
    boxes, scores = random_boxes(60)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap(boxes[i].tolist(), boxes[j].tolist(), offset) <= threshold for j in kept):
            kept.append(i)
    return [torch.cat((boxes[kept], scores[kept, None]), 1), torch.tensor(kept)]


def soft_nms_case(offset, method, dtype=torch.float64, device='cpu'):
    boxes, scores = random_boxes(60, dtype=dtype, device=device)
    return list(mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method=method, offset=offset))


def soft_nms_reference(offset, method):
    boxes, scores = random_boxes(60)
    left = {i: score for i, score in enumerate(scores.tolist())}
    rows, order = [], []
    while left:
        best = max(left, key=left.get)
        rows.append([*boxes[best].tolist(), left.pop(best)])
        order.append(best)
        for i in list(left):
            iou = overlap(boxes[best].tolist(), boxes[i].tolist(), offset)
            if method == 'gaussian':
                left[i] *= math.exp(-iou**2 / 0.5)
            elif iou >= 0.3:
                left[i] *= 1 - iou if method == 'linear' else 0
            if left[i] < 0.05:
                del left[i]
    return [torch.tensor(rows, dtype=torch.float64), torch.tensor(order)]


# -------------------------------------------------------------------------------------------------------- RoI pooling
# Inside the map, beyond its borders, smaller than a pixel, and on the second picture.
ROIS = [[0, 2., 3., 11., 9.], [1, -4., -3., 7.5, 30.], [0, 5.2, 5.1, 5.5, 6.1], [1, 0., 0., 23., 19.]]


def roi_align_case(output_size, sampling_ratio, aligned, dtype=torch.float64, device='cpu'):
    x = random(2, 3, 10, 12, dtype=dtype, device=device)
    rois = torch.tensor(ROIS, dtype=dtype, device=device)
    return with_gradients(mmcv.ops.roi_align(x, rois, output_size, 0.5, sampling_ratio, 'avg', aligned), x)


def roi_align_reference(output_size, sampling_ratio, aligned):
    x = random(2, 3, 10, 12)
    height, width = x.shape[2:]
    result = []
    for image, *corners in ROIS:
        x1, y1, x2, y2 = (corner * 0.5 - 0.5 * aligned for corner in corners)
        extent = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
        step = [e / n for e, n in zip(extent, output_size, strict=True)]
        points = [sampling_ratio or math.ceil(s) for s in step]
        for i, j in itertools.product(*map(range, output_size)):
            total = 0
            for a, b in itertools.product(*map(range, points)):
                y = y1 + (i + (a + .5) / points[0]) * step[0]
                u = x1 + (j + (b + .5) / points[1]) * step[1]
                if -1 <= y <= height and -1 <= u <= width:
                    total = total + bilinear(x[image], min(max(y, 0), height - 1), min(max(u, 0), width - 1))
            result.append(total / max(points[0] * points[1], 1) + x.new_zeros(3))
    return with_gradients(torch.stack(result).view(len(ROIS), *output_size, 3).permute(0, 3, 1, 2), x)


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


# --------------------------------------------------------------------------------------------- deformable convolution
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
                part = bilinear(x[n, d * per_deform:(d + 1) * per_deform], y, u)
                parts.append(part * mask[n, channel, i, j] if modulated else part)
            columns.append(torch.cat(parts))
        columns = torch.stack(columns, 1).view(s['groups'], per_group, kernel_h * kernel_w)
        kernels = weight.view(s['groups'], -1, per_group, kernel_h * kernel_w)
        pixel = torch.einsum('gct,gkct->gk', columns, kernels).flatten()
        result.append(pixel if bias is None else pixel + bias)
    out = torch.stack(result).view(2, out_h, out_w, 8).permute(0, 3, 1, 2)
    return with_gradients(out, x, offset, mask, weight, bias)


# --------------------------------------------------------------------------------------------------------- focal loss
TARGETS = [0, 2, 3, 1, 3, -1]  # 3 classes; 3 is background, as is any number that is no class


def focal_case(gamma, alpha, weighted, reduction, dtype=torch.float64, device='cpu'):
    x = (random(6, 3, dtype=dtype, device=device, grad=False) * 4).requires_grad_()
    target = torch.tensor(TARGETS, device=device)
    weight = torch.tensor([.5, 1., 3.], dtype=dtype, device=device) if weighted else None
    if weighted:  # mmcv's kernels read beyond the weights for a row of no class
        x, target = x[:4].detach().requires_grad_(), target[[0, 1, 3, 1]]
    return with_gradients(mmcv.ops.sigmoid_focal_loss(x, target, gamma, alpha, weight, reduction), x)


def focal_reference(gamma, alpha, weighted, reduction):
    x = (random(6, 3, grad=False) * 4).requires_grad_()
    target = TARGETS
    if weighted:
        x, target = x[:4].detach().requires_grad_(), [0, 2, 1, 2]
    rows = []
    for row, label in zip(x, target, strict=True):
        p = 1 / (1 + (-row).exp())
        entries = [-alpha * (1 - p[c])**gamma * p[c].log() if c == label else
                   -(1 - alpha) * p[c]**gamma * (1 - p[c]).log() for c in range(3)]
        rows.append(torch.stack(entries) * ([.5, 1., 3.][label] if weighted else 1))
    loss = torch.stack(rows)
    loss = dict(none=loss, sum=loss.sum(), mean=loss.sum() / len(loss))[reduction]
    return with_gradients(loss, x)


# ----------------------------------------------------------------------------------- multi-scale deformable attention
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


CASES = {
    **{f'nms-{o}-{t}': (nms_case, nms_reference, (o, t)) for o in (0, 1) for t in (0.3, 0.6)},
    **{f'soft_nms-{o}-{m}': (soft_nms_case, soft_nms_reference, (o, m))
       for o in (0, 1) for m in ('naive', 'linear', 'gaussian')},
    **{f'roi_align-{r}-{"aligned" if a else "legacy"}': (roi_align_case, roi_align_reference, ((3, 2), r, a))
       for r in (0, 2) for a in (True, False)},
    **{f'deform_conv-{s}': (deform_conv_case, deform_conv_reference, (s, )) for s in DEFORM},
    **{f'modulated_deform_conv-{s}-{"bias" if b else "nobias"}': (
        modulated_deform_conv_case, lambda s, b: deform_conv_reference(s, True, b), (s, b))
       for s, b in [('plain', True), ('plain', False), ('grouped', True), ('depthwise', False)]},
    'roi_pool': (roi_pool_case, roi_pool_reference, ((2, 3), )),
    **{f'focal-{g}-{a}-{"weighted" if w else "plain"}-{r}': (focal_case, focal_reference, (g, a, w, r))
       for g, a, w, r in [(2., .25, False, 'none'), (2., .25, True, 'mean'), (1.5, .4, True, 'none'),
                          (0., .5, False, 'sum')]},
    'ms_deform_attn': (ms_deform_attn_case, ms_deform_attn_reference, ()),
}
CUDA_ONLY = ('roi_pool', 'focal', 'ms_deform_attn')  # mmcv compiles no CPU kernel of these


@pytest.mark.parametrize('name', CASES)
def test_against_plain_formulation(name, bridged):
    case, reference, arguments = CASES[name]
    for got, expected in zip(case(*arguments), reference(*arguments), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


# Rounding boxes or sampling grids to half precision would pose another problem.
@pytest.mark.parametrize('name, dtype', [
    (name, dtype) for name in CASES for dtype in (torch.float32, torch.float16, torch.bfloat16)
    if dtype == torch.float32 or not name.startswith(('nms', 'soft_nms', 'ms_deform'))])
def test_lower_precision(name, dtype, bridged):
    """What comes out has the dtype that went in, and is the float64 result of the same inputs up to rounding."""
    case, reference, arguments = CASES[name]
    tolerance = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}[dtype]
    for got, expected in zip(case(*arguments, dtype=dtype), case(*arguments), strict=True):
        assert got.dtype == (torch.int64 if expected.dtype == torch.int64 else dtype)
        if name.startswith(('deform', 'modulated')) and dtype != torch.float32:
            # A rounded offset may fall into the next pixel, where the slope jumps: the bulk has to agree.
            distance = (got.double() - expected).abs() / (1 + expected.abs())
            assert distance.median() < tolerance
        else:
            torch.testing.assert_close(got.to(expected.dtype), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope='module')
def compiled():
    """mmcv's compiled operators, loaded beside the bridge where that is in use."""
    if bridge.in_use() == 'mmcv':
        return sys.modules['mmcv._ext']
    spec = importlib.machinery.PathFinder.find_spec('mmcv._ext', mmcv.__path__)
    if spec is None:
        pytest.skip('mmcv was installed without compiled operators')
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        pytest.skip(f"mmcv's compiled operators do not load: {error}")
    return module


@pytest.mark.parametrize('name', CASES)
def test_against_compiled_mmcv(name, compiled, monkeypatch):
    device = 'cpu'
    if name.startswith(CUDA_ONLY):
        if not torch.cuda.is_available() or compiled.get_compiling_cuda_version() == 'not available':
            pytest.skip('compiled mmcv has no CPU kernel of this operator, and there is no GPU or no CUDA build')
        device = 'cuda'
    case, _, arguments = CASES[name]
    results = []
    for extension in (mmcv_ops, compiled):
        use(monkeypatch, extension)
        results.append(case(*arguments, dtype=torch.float32, device=device))
    differences = [(a.double() - b.double()).abs().max().item() for a, b in zip(*results, strict=True)]
    print(f'{name}: largest difference {max(differences):.1e}')
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)


# ------------------------------------------------------------------------------------------------------- corner cases
def test_nms_keeps_an_overlap_equal_to_the_threshold(bridged):
    # IoU 0.6 exactly; 0.6 as a double is below 0.6 as a float.
    boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 6.]])
    assert mmcv.ops.nms(boxes, torch.tensor([.9, .8]), 0.6)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, torch.tensor([.9, .8]), 0.59)[1].tolist() == [0]


def test_nms_takes_boxes_and_scores_of_different_precision(bridged):
    boxes, scores = random_boxes(20, dtype=torch.float32)
    assert torch.equal(mmcv.ops.nms(boxes, scores.half(), 0.5)[1], mmcv.ops.nms(boxes, scores.half().float(), 0.5)[1])


def test_nothing_in_nothing_out(bridged):
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    assert mmcv.ops.nms(boxes, scores, 0.5)[0].shape == (0, 5)
    assert mmcv.ops.soft_nms(boxes, scores, 0.5)[0].shape == (0, 5)
    x, rois = random(1, 2, 4, 4, dtype=torch.float32), torch.zeros(0, 5)
    for out in (mmcv.ops.roi_align(x, rois, (2, 2)), mmcv.ops.roi_pool(x, rois, (2, 2))):
        assert out.shape == (0, 2, 2, 2)
        assert torch.equal(grad(out.sum(), x)[0], torch.zeros_like(x))


def test_soft_nms_of_boxes_without_area(bridged):
    boxes = torch.tensor([[1., 1., 1., 1.], [1., 1., 1., 1.]])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dets, _ = mmcv.ops.soft_nms(boxes, torch.tensor([.9, .8]), method='gaussian')
    assert torch.equal(dets[:, 4], torch.tensor([.9, .8]))


def test_focal_loss_far_from_zero(bridged):
    x = torch.tensor([[80., -80.], [-80., 80.]], requires_grad=True)
    loss, slope = with_gradients(mmcv.ops.sigmoid_focal_loss(x, torch.tensor([0, 0]), 2., .25, None, 'none'), x)
    torch.testing.assert_close(loss, torch.tensor([[0., 0.], [.25 * 80, .75 * 80]]))
    assert slope.isfinite().all()


def test_focal_loss_weight_leaves_background_alone(bridged):
    x, target, weight = random(2, 3), torch.tensor([3, 1]), torch.tensor([2., 5., 7.]).double()
    plain = mmcv.ops.sigmoid_focal_loss(x, target, 2., .25, None, 'none')
    weighted = mmcv.ops.sigmoid_focal_loss(x, target, 2., .25, weight, 'none')
    torch.testing.assert_close(weighted, plain * torch.tensor([[1.], [5.]]))


def test_roi_align_is_not_changed_by_autocast(bridged):
    x, rois = random(2, 3, 10, 12, dtype=torch.bfloat16), torch.tensor(ROIS)
    with torch.autocast('cpu', torch.bfloat16):
        out = mmcv.ops.roi_align(x, rois, (3, 2), 0.5)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), mmcv.ops.roi_align(x.float(), rois, (3, 2), 0.5), rtol=1e-2, atol=1e-2)


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


def test_multi_scale_deformable_attention_module():
    torch.manual_seed(0)
    layer = mmcv.ops.MultiScaleDeformableAttention(8, 2, 2, 3, batch_first=True, dropout=0.)
    out = layer(random(2, 4, 8, dtype=torch.float32), value=random(2, 26, 8, seed=1, dtype=torch.float32),
                reference_points=torch.rand(2, 4, 2, 2), spatial_shapes=torch.tensor([[4, 5], [2, 3]]),
                level_start_index=torch.tensor([0, 20]))
    out.sum().backward()
    assert out.shape == (2, 4, 8) and layer.value_proj.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------------------- errors
def call_nms(boxes, scores):
    return lambda: mmcv_ops.nms(boxes, scores, iou_threshold=.5, offset=0)


def call_modulated(x=(1, 4, 5, 5), offset=(1, 18, 5, 5), mask=(1, 9, 5, 5), weight=(2, 4, 3, 3), bias=(2, ), groups=1):
    return lambda: mmcv.ops.modulated_deform_conv2d(*map(torch.rand, (x, offset, mask, weight, bias)), 1, 1, 1, groups)


@pytest.mark.parametrize('call, error, message', [
    (call_nms(torch.rand(3, 5), torch.rand(3)), ValueError, r'nms: boxes must have shape \(\*, 4\), got \(3, 5\)'),
    (call_nms(torch.rand(3, 4), torch.rand(2)), ValueError, r'nms: scores must have shape \(3\), got \(2,\)'),
    (call_nms(torch.rand(3, 4).long(), torch.rand(3)), TypeError, r'nms: boxes must be a floating-point.*int64'),
    (call_nms(torch.rand(3, 4), torch.rand(3, device='meta')), ValueError, 'scores is on meta but boxes is on cpu'),
    (lambda: mmcv.ops.roi_align(torch.rand(2, 1, 4, 4), torch.tensor([[2, 0., 0., 1., 1.]]), (2, 2)), ValueError,
     r'roi_align: the first column of rois .* 0 to 1 .* from 2 to 2'),
    (lambda: mmcv.ops.roi_pool(torch.rand(2, 1, 4, 4), torch.tensor([[-1, 0., 0., 1., 1.]]), (2, 2)), ValueError,
     r'roi_pool: the first column of rois'),
    (call_modulated(weight=(2, 3, 3, 3)), ValueError, 'does not fit an input with 4 channels'),
    (call_modulated(weight=(3, 2, 3, 3), bias=(3, ), groups=2), ValueError, 'groups=2'),
    (call_modulated(offset=(1, 16, 5, 5)), ValueError, r'offset must have shape \(1, 18, 5, 5\), got \(1, 16, 5, 5\)'),
    (call_modulated(mask=(1, 9, 4, 5)), ValueError, r'mask must have shape \(1, 9, 5, 5\)'),
    (call_modulated(bias=(3, )), ValueError, r'bias must have shape \(2\), got \(3,\)'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_bad_input(call, error, message, bridged):
    with pytest.raises(error, match=message):
        call()


def test_other_operators_say_how_to_build_them():
    assert hasattr(mmcv_ops, 'nms_quadri') and not hasattr(mmcv_ops, '__wrapped__')
    with pytest.raises(NotImplementedError, match=r"'nms_quadri' is not available.*make mmcv.*MMCV_WITH_OPS=1"):
        mmcv_ops.nms_quadri(torch.rand(1, 5), torch.rand(1))


def test_versions():
    assert mmcv_ops.get_compiling_cuda_version() == 'not available'
    assert 'torchvision' in mmcv_ops.get_compiler_version()
