"""IoU and non-maximum suppression of rotated boxes."""
import math

import pytest
import torch
from mmcv_operators import generator, mmcv, random_boxes, standard_tests

from plugconv_mm.compat import mmcv_ops


def rotated_boxes(count, seed=0, dtype=torch.float64, device='cpu'):
    boxes, scores = random_boxes(count, seed)
    angle = torch.rand(count, 1, generator=generator(seed + 7), dtype=torch.float64) * 8 - 4
    center, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return torch.cat((center, extent, angle), 1).to(device, dtype), scores.to(device, dtype)


def polygon(box):
    """The corners of a box, in turn, with angles that count from x to y."""
    x, y, w, h, angle = box
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x + u * cos * w / 2 - v * sin * h / 2, y + u * sin * w / 2 + v * cos * h / 2)
            for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def common_area(a, b):
    """Sutherland and Hodgman's clipping of one polygon by each edge of the other, then the shoelace formula."""
    points, corners = polygon(a), polygon(b)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        side = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in points]
        kept = []
        for i, ((x, y), s) in enumerate(zip(points, side, strict=True)):
            (u, v), t = points[i - 1], side[i - 1]
            if (s < 0) != (t < 0):
                kept.append((u + (x - u) * t / (t - s), v + (y - v) * t / (t - s)))
            if s >= 0:
                kept.append((x, y))
        points = kept
    return abs(sum(points[i - 1][0] * p[1] - points[i - 1][1] * p[0] for i, p in enumerate(points))) / 2


def iou(a, b, mode='iou'):
    common = common_area(a, b)
    area1, area2 = a[2] * a[3], b[2] * b[3]
    return common / (area1 + area2 - common if mode == 'iou' else area1)


def box_iou_rotated_case(mode, aligned, clockwise, dtype=torch.float64, device='cpu'):
    (first, _), (second, _) = (rotated_boxes(count, seed, dtype, device) for count, seed in ((12, 0), (12, 1)))
    return [mmcv.ops.box_iou_rotated(first, second, mode, aligned, clockwise)]


def box_iou_rotated_reference(mode, aligned, clockwise):
    first, second = ([[*box[:4], box[4] if clockwise else -box[4]] for box in rotated_boxes(12, seed)[0].tolist()]
                     for seed in (0, 1))
    if aligned:
        result = [iou(a, b, mode) for a, b in zip(first, second, strict=True)]
    else:
        result = [[iou(a, b, mode) for b in second] for a in first]
    return [torch.tensor(result, dtype=torch.float64)]


def nms_rotated_case(threshold, clockwise, dtype=torch.float64, device='cpu'):
    boxes, scores = rotated_boxes(200, dtype=dtype, device=device)
    return list(mmcv.ops.nms_rotated(boxes, scores, threshold, clockwise=clockwise))


def nms_rotated_reference(threshold, clockwise):
    boxes, scores = rotated_boxes(200)
    turned = [[*box[:4], box[4] if clockwise else -box[4]] for box in boxes.tolist()]
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(turned[j], turned[i]) < threshold for j in kept):
            kept.append(i)
    return [torch.cat((boxes[kept], scores[kept, None]), 1), torch.tensor(kept)]


CASES = {
    **{f'box_iou_rotated-{m}-{"pairs" if a else "all"}-{"cw" if c else "ccw"}': (
        box_iou_rotated_case, box_iou_rotated_reference, (m, a, c))
       for m, a, c in [('iou', False, True), ('iou', True, False), ('iof', False, False), ('iof', True, True)]},
    **{f'nms_rotated-{t}-{"cw" if c else "ccw"}': (nms_rotated_case, nms_rotated_reference, (t, c))
       for t, c in [(.1, True), (.5, False)]},
}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, by_value=('box_iou_rotated', 'nms_rotated'))


@pytest.mark.parametrize('second, expected', [
    ((5, 5, 4, 2, .3), 1), ((5, 5, 4, 2, .3 + math.pi), 1), ((5, 5, 2, 4, .3 + math.pi / 2), 1),
    ((5, 5, 2, 1, .3), .25), ((50, 5, 4, 2, .3), 0), ((5, 5, 0, 2, .3), 0),
    ((5 + 2 * math.cos(.3), 5 + 2 * math.sin(.3), 4, 2, .3), 1 / 3),
    ((5 + 4 * math.cos(.3), 5 + 4 * math.sin(.3), 4, 2, .3), 0)],
    ids=['itself', 'half a turn', 'sides changed', 'inside', 'apart', 'no area', 'half along', 'edge on edge'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_boxes_whose_edges_touch_or_coincide(second, expected, dtype):
    first, second = torch.tensor([[5, 5, 4, 2, .3]], dtype=dtype), torch.tensor([second], dtype=dtype)
    for pair in ((first, second), (second, first)):
        result = mmcv.ops.box_iou_rotated(*pair)
        torch.testing.assert_close(result, torch.full_like(result, expected), rtol=0, atol=2e-6)


def test_large_coordinates_in_single_precision():
    boxes = torch.tensor([[8000.3, 7000.7, 500, 3, .7], [8001.3, 7001.7, 510, 4, .71]])
    expected = iou(*boxes.double().tolist())
    assert mmcv.ops.box_iou_rotated(boxes[:1], boxes[1:]).item() == pytest.approx(expected, rel=1e-4)


def test_thousands_of_boxes_keep_what_one_by_one_keeps(bridged):
    """More boxes than are decided on at once, in crowds that suppress each other."""
    boxes, scores = rotated_boxes(3000, dtype=torch.float32)
    boxes[:, :2] += torch.arange(3000).remainder(30)[:, None] * 40.
    _, kept = mmcv.ops.nms_rotated(boxes, scores, .3)
    order, ious = scores.argsort(descending=True), mmcv.ops.box_iou_rotated(boxes, boxes)
    alive = torch.ones(3000, dtype=torch.bool)
    expected = []
    for i in order.tolist():
        if alive[i]:
            expected.append(i)
            alive &= ious[i] < .3
    assert 30 < len(expected) < 2000 and kept.tolist() == expected


def test_an_iou_equal_to_the_threshold_is_suppressed_on_the_cpu(bridged):
    boxes = torch.tensor([[5., 5., 10., 10., 0.], [5., 2.5, 10., 5., 0.]])
    assert mmcv.ops.nms_rotated(boxes, torch.tensor([.9, .8]), .5)[1].tolist() == [0]
    assert mmcv.ops.nms_rotated(boxes, torch.tensor([.9, .8]), .51)[1].tolist() == [0, 1]


def test_batched_nms_of_rotated_boxes_leaves_classes_alone(bridged):
    boxes, scores = rotated_boxes(40, dtype=torch.float32)
    labels = torch.arange(40).remainder(2)
    _, kept = mmcv.ops.batched_nms(boxes, scores, labels, dict(type='nms_rotated', iou_threshold=.1))
    apart = [(labels == label).nonzero()[:, 0][mmcv.ops.nms_rotated(boxes[labels == label], scores[labels == label],
                                                                    .1)[1]] for label in (0, 1)]
    assert sorted(kept.tolist()) == sorted(torch.cat(apart).tolist())


def test_nothing_in_nothing_out(bridged):
    none, some = torch.zeros(0, 5), torch.rand(3, 5)
    assert mmcv.ops.box_iou_rotated(none, some).shape == (0, 3) and mmcv.ops.box_iou_rotated(some, none).shape == (3, 0)
    assert mmcv.ops.box_iou_rotated(none, none, aligned=True).shape == (0, )
    scores, order = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert mmcv_ops.nms_rotated(none, scores, order, none, scores, .5, 0).shape == (0, )


def test_bad_input(bridged):
    cases = [((torch.rand(3, 4), torch.rand(2, 5)), r'boxes1 must have shape \(\*, 5\), got \(3, 4\)'),
             ((torch.rand(3, 5), torch.rand(2, 5), 'iou', True), r'boxes2 must have shape \(3, 5\)')]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            mmcv.ops.box_iou_rotated(*arguments)
    with pytest.raises(TypeError, match='boxes2 must be a floating-point tensor'):
        mmcv.ops.box_iou_rotated(torch.rand(3, 5), torch.rand(2, 5).long())
    with pytest.raises(ValueError, match=r'nms_rotated: dets must have shape \(\*, 5\)'):
        mmcv.ops.nms_rotated(torch.rand(3, 4), torch.rand(3), .5)
