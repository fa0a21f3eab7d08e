import json

import numpy as np
import pytest

pytest.importorskip('matplotlib')

import cv2  # noqa: E402

from plugconv_mm.visualization import draw_instances, draw_label_map, plot_curves, read_scalars, save_grid  # noqa: E402

CLASSES, PALETTE = ('one', 'two'), [(255, 0, 0), (0, 0, 255)]


def log(work_dir, run, records):
    folder = work_dir / run / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(record) + '\n' for record in records))


def test_epochs_become_iterations(tmp_path):
    log(tmp_path, '1', [dict(loss=3.0, epoch=1, iter=5, step=5), dict(loss=2.0, epoch=1, iter=10, step=10),
                        {'coco/bbox_mAP': 0.1, 'step': 1}, dict(loss=1.0, epoch=2, iter=20, step=20),
                        {'coco/bbox_mAP': 0.2, 'step': 2}])
    curves = read_scalars(tmp_path)
    assert curves['loss'] == [(5, 3.0), (10, 2.0), (20, 1.0)]
    assert curves['coco/bbox_mAP'] == [(10, 0.1), (20, 0.2)]


def test_iterations_and_resumed_runs(tmp_path):
    log(tmp_path, '1', [dict(loss=3.0, iter=10, step=10), dict(mIoU=20., step=10), dict(loss=2.5, iter=20, step=20)])
    log(tmp_path, '2', [dict(loss=2.0, iter=20, step=20), dict(mIoU=30., step=20)])
    curves = read_scalars(tmp_path)
    assert curves['loss'] == [(10, 3.0), (20, 2.0)]
    assert curves['mIoU'] == [(10, 20.), (20, 30.)]


def test_a_resumed_run_that_evaluates_first(tmp_path):
    log(tmp_path, '1', [dict(loss=3.0, epoch=1, iter=5, step=5), dict(loss=2.5, epoch=2, iter=7, step=7)])
    log(tmp_path, '2', [{'coco/bbox_mAP': 0.1, 'step': 1}, dict(loss=2.0, epoch=2, iter=10, step=10)])
    assert read_scalars(tmp_path)['coco/bbox_mAP'] == [(5, 0.1)]


def test_records_of_hooks_and_lines_cut_short(tmp_path):
    log(tmp_path, '1', [dict(density=0.6, iter=0, step=0), dict(loss=3.0, epoch=1, iter=5, step=5),
                        dict(density=0.5, iter=5, step=5), {'coco/bbox_mAP': 0.1, 'step': 1}])
    file = tmp_path / '1' / 'vis_data' / 'scalars.json'
    file.write_text(file.read_text() + '{"loss": 2.')
    curves = read_scalars(tmp_path)
    assert curves['density'] == [(0, 0.6), (5, 0.5)] and curves['loss'] == [(5, 3.0)]
    assert curves['coco/bbox_mAP'] == [(5, 0.1)]


def test_no_log_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='was a model trained there'):
        read_scalars(tmp_path)


def test_curves_are_drawn(tmp_path):
    log(tmp_path, '1', [dict(loss=3.0, iter=10, step=10), dict(mIoU=20., step=10)])
    plot_curves(tmp_path / 'new' / 'curves.png', tmp_path, 'a training', {'mIoU': ('mIoU', 0.01), 'absent': ('no', 1)})
    assert cv2.imread(str(tmp_path / 'new' / 'curves.png')).shape[1] == 1300
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['curves.png']


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
