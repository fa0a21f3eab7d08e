"""Overlaps of axis-aligned boxes."""
import pytest
import torch
from mmcv_operators import mmcv, overlap, random_boxes, standard_tests


def bbox_overlaps_case(mode, aligned, offset, dtype=torch.float64, device='cpu'):
    (first, _), (second, _) = (random_boxes(9, seed, dtype, device) for seed in (0, 1))
    return [mmcv.ops.bbox_overlaps(first, second, mode, aligned, offset)]


def bbox_overlaps_reference(mode, aligned, offset):
    (first, _), (second, _) = (random_boxes(9, seed) for seed in (0, 1))
    table = []
    for a in first.tolist():
        row = []
        for b in second.tolist():
            iou = overlap(a, b, offset)
            area1, area2 = ((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b))
            row.append(iou if mode == 'iou' else iou / (1 + iou) * (area1 + area2) / area1)
        table.append(row)
    table = torch.tensor(table, dtype=torch.float64)
    return [table.diag() if aligned else table]


CASES = {f'bbox_overlaps-{m}-{"pairs" if a else "all"}-{o}': (bbox_overlaps_case, bbox_overlaps_reference, (m, a, o))
         for m in ('iou', 'iof') for a in (False, True) for o in (0, 1)}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, by_value=('bbox_overlaps', ))


def test_nothing_in_nothing_out(bridged):
    none, some = torch.zeros(0, 4), torch.rand(2, 4)
    assert mmcv.ops.bbox_overlaps(none, some).shape == (0, 2) and mmcv.ops.bbox_overlaps(some, none).shape == (2, 0)


def test_bad_input(bridged):
    with pytest.raises(ValueError, match='bbox_overlaps: mode must be 0'):
        mmcv.ops.bbox.ext_module.bbox_overlaps(torch.rand(2, 4), torch.rand(2, 4), torch.rand(2, 2), 2, False, 0)
    with pytest.raises(TypeError, match='bbox_overlaps: bboxes1 must be a floating-point tensor'):
        mmcv.ops.bbox_overlaps(torch.ones(2, 4).long(), torch.rand(2, 4))
