"""Predictions beside ground truth."""
import numpy as np
import pytest

pytest.importorskip('matplotlib')

import cv2  # noqa: E402

from plugconv_mm.visualization import draw_instances, draw_label_map, save_grid  # noqa: E402

CLASSES, PALETTE = ('one', 'two'), [(255, 0, 0), (0, 0, 255)]


def panels(path, rows, columns):
    """The panels of a page, cut out by their black background images."""
    page = cv2.imread(str(path)).astype(int)
    dark = (page.sum(2) < 30)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(dark.astype(np.uint8))
    boxes = [tuple(box[:4]) for box in boxes[1:count] if box[2] > 200 and box[3] > 200]
    assert len(boxes) == rows * columns
    boxes = sorted(boxes, key=lambda box: (round(box[1] / 100), box[0]))
    return [page[y:y + h, x:x + w] for x, y, w, h in boxes]


def test_truth_and_prediction_are_side_by_side(tmp_path):
    image = np.zeros((160, 160, 3), np.uint8)
    mask = np.zeros((160, 160), bool)
    mask[100:140, 20:60] = True
    truth = [dict(box=(20, 100, 60, 140), label=0, mask=mask)]
    guess = [dict(box=(20, 100, 60, 140), label=1, mask=mask, score=0.9)]
    save_grid(tmp_path / 'grid.png', 'title', [('a', image, truth, guess), ('b', image, [], [])],
              lambda ax, p, item: draw_instances(ax, p, item, CLASSES, PALETTE))
    found = panels(tmp_path / 'grid.png', 1, 4)
    inside = [p[int(0.7 * p.shape[0]):int(0.8 * p.shape[0]), int(0.2 * p.shape[1]):int(0.3 * p.shape[1])].mean((0, 1))
              for p in found]
    assert inside[0][2] > 80 and inside[0][0] < 10  # red, as BGR
    assert inside[1][0] > 80 and inside[1][2] < 10  # blue
    assert inside[2].max() < 10 and inside[3].max() < 10


def test_label_maps(tmp_path):
    image = np.zeros((160, 160, 3), np.uint8)
    labels = np.zeros((160, 160), np.uint8)
    labels[100:140, 20:60] = 1
    labels[:20] = 255
    save_grid(tmp_path / 'grid.png', 'title', [('a', image, labels, np.zeros_like(labels))],
              lambda ax, p, item: draw_label_map(ax, p, item, CLASSES, PALETTE))
    truth, guess = panels(tmp_path / 'grid.png', 1, 2)
    height, width = truth.shape[:2]
    middle = np.s_[int(0.7 * height):int(0.8 * height), int(0.2 * width):int(0.3 * width)]
    assert truth[middle][..., 0].mean() > 100 and guess[middle].mean() < 10
    assert truth[:20, 5:-5].mean() < 40  # what is not labelled is left as it is


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match='no images'):
        save_grid(tmp_path / 'grid.png', 'title', [], None)
