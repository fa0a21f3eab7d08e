"""Curves of a training, from its log."""
import json

import pytest

pytest.importorskip('matplotlib')

import cv2  # noqa: E402

from plugconv_mm.visualization import plot_curves, read_scalars  # noqa: E402


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
