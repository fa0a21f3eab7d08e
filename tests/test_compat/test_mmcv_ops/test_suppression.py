"""Non-maximum suppression of boxes and lanes."""
import math
import sys
import warnings

import pytest
import torch
from mmcv_operators import mmcv, overlap, random, random_boxes, standard_tests

from plugconv_mm.compat import mmcv_ops


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


def nms_match_case(threshold, dtype=torch.float64, device='cpu'):
    boxes, scores = random_boxes(60, dtype=dtype, device=device)
    groups = mmcv.ops.nms_match(torch.cat((boxes, scores[:, None]), 1), threshold)
    return [torch.cat(groups), torch.tensor([len(group) for group in groups])]


def nms_match_reference(threshold):
    boxes, scores = random_boxes(60)
    left, groups = scores.argsort(descending=True).tolist(), []
    while left:
        best = left.pop(0)
        matched = [i for i in left if overlap(boxes[best].tolist(), boxes[i].tolist()) >= threshold]
        groups.append([best, *matched])
        left = [i for i in left if i not in matched]
    return [torch.tensor(sum(groups, [])), torch.tensor([len(group) for group in groups])]


ROWS = 10


def lanes(dtype=torch.float64, device='cpu'):
    """24 lanes of random starts and lengths, in three bundles that overlap, and their scores."""
    bundle = torch.arange(24).remainder(3)[:, None] * 30.
    points = bundle + 40 + 6 * random(24, ROWS, grad=False)
    start = torch.arange(24).remainder(5)[:, None] / (ROWS - 1)
    length = torch.arange(24).remainder(7)[:, None] + 1.
    rows = torch.cat((torch.zeros(24, 2), start, torch.zeros(24, 1), length, points), 1)
    return rows.to(device, dtype), torch.linspace(.1, .9, 24, dtype=torch.float64)[torch.randperm(
        24, generator=torch.Generator().manual_seed(0))].to(device, dtype)


def line_nms_case(top_k, dtype=torch.float64, device='cpu'):
    return list(sys.modules['mmcv.ops.line_nms'].line_nms(*lanes(dtype, device), 8., top_k))


def line_nms_reference(top_k):
    rows, scores = lanes()
    left, keep, parent = scores.argsort(descending=True).tolist(), [], [0] * len(rows)
    while left and len(keep) < top_k:
        best = left.pop(0)
        keep.append(best)
        parent[best] = len(keep)
        for i in list(left):
            spans = [range(round(rows[j, 2].item() * (ROWS - 1)), ROWS)[:int(rows[j, 4])] for j in (best, i)]
            shared = sorted(set(spans[0]) & set(spans[1]))
            if shared and (rows[best, 5:] - rows[i, 5:]).abs()[shared].mean() < 8:
                parent[i] = len(keep)
                left.remove(i)
    return [torch.tensor(keep + [0] * (len(rows) - len(keep))), torch.tensor(len(keep)), torch.tensor(parent)]


CASES = {
    **{f'nms-{o}-{t}': (nms_case, nms_reference, (o, t)) for o in (0, 1) for t in (0.3, 0.6)},
    **{f'soft_nms-{o}-{m}': (soft_nms_case, soft_nms_reference, (o, m))
       for o in (0, 1) for m in ('naive', 'linear', 'gaussian')},
    **{f'nms_match-{t}': (nms_match_case, nms_match_reference, (t, )) for t in (.3, .6)},
}
if 'mmcv.ops.line_nms' in sys.modules:  # onedl-mmcv alone has it
    CASES |= {f'line_nms-{k}': (line_nms_case, line_nms_reference, (k, )) for k in (3, 100)}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(
        CASES, cuda_only=('line_nms', ),
        by_value=('nms', 'soft_nms', 'line_nms'))


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
    assert mmcv_ops.nms_match(torch.zeros(0, 5), .5) == []
    keep, count, parent = mmcv_ops.line_nms_forward(torch.zeros(0, 5 + ROWS), scores, 8., 5)
    assert keep.shape == parent.shape == (0, ) and count == 0


def test_soft_nms_of_boxes_without_area(bridged):
    boxes = torch.tensor([[1., 1., 1., 1.], [1., 1., 1., 1.]])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dets, _ = mmcv.ops.soft_nms(boxes, torch.tensor([.9, .8]), method='gaussian')
    assert torch.equal(dets[:, 4], torch.tensor([.9, .8]))


def call_nms(boxes, scores):
    return lambda: mmcv_ops.nms(boxes, scores, iou_threshold=.5, offset=0)


@pytest.mark.parametrize('call, error, message', [
    (call_nms(torch.rand(3, 5), torch.rand(3)), ValueError, r'nms: boxes must have shape \(\*, 4\), got \(3, 5\)'),
    (call_nms(torch.rand(3, 4), torch.rand(2)), ValueError, r'nms: scores must have shape \(3\), got \(2,\)'),
    (call_nms(torch.rand(3, 4).long(), torch.rand(3)), TypeError, r'nms: boxes must be a floating-point.*int64'),
    (call_nms(torch.rand(3, 4), torch.rand(3, device='meta')), ValueError, 'scores is on meta but boxes is on cpu'),
    (lambda: mmcv_ops.nms_match(torch.rand(3, 4), .5), ValueError, r'nms_match: dets must have shape \(\*, 5\)'),
    (lambda: mmcv_ops.line_nms_forward(torch.rand(3, 77), torch.rand(2), 8., 5), ValueError,
     r'line_nms: scores must have shape \(3\)'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
