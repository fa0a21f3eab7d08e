"""The demo from beginning to end, on a handful of images and iterations."""
import json
import re
from pathlib import Path

import pytest

for name in ('mmdet', 'mmseg'):
    pytest.importorskip(name)

import cv2  # noqa: E402
from repository import ROOT, tool  # noqa: E402

from plugconv_mm.datasets import build_digits  # noqa: E402


@pytest.fixture
def demo(tmp_path, monkeypatch):
    module = tool('demo')
    data = tmp_path / 'data'
    build_digits(data, num_train=4, num_val=3, log=lambda line: None)
    roots = ''.join(f"{loader}_dataloader = dict(dataset=dict(data_root='{data}/'))\n" for loader in
                    ('train', 'val', 'test'))
    evaluators = ''.join(f"{e}_evaluator = dict(ann_file='{data}/annotations/instances_val.json')\n"
                         for e in ('val', 'test'))
    detector, segmentor = tmp_path / 'detector.py', tmp_path / 'segmentor.py'
    detector.write_text(f"_base_ = ['{ROOT / module.DETECTOR}']\ntrain_cfg = dict(max_epochs=2)\n{roots}{evaluators}")
    segmentor.write_text(f"_base_ = ['{ROOT / module.SEGMENTOR}']\ntrain_cfg = dict(max_iters=2, val_interval=1)\n"
                         f'default_hooks = dict(checkpoint=dict(interval=1))\n{roots}')
    for name, value in (('DETECTOR', str(detector)), ('SEGMENTOR', str(segmentor)), ('DATA', data)):
        monkeypatch.setattr(module, name, value)
    # the data is there with settings of its own; the builder's command line would ask for the usual ones
    run = module.run
    monkeypatch.setattr(module, 'run', lambda command, *rest: None if 'converters' in str(command[0])
                        else run(command, *rest))
    return module


@pytest.mark.slow
def test_demo(demo, tmp_path, capsys, monkeypatch):
    out = tmp_path / 'out'
    monkeypatch.setattr(demo, 'fingerprint', lambda config: Path(config).read_text())
    demo.main(['--out', str(out)])
    text = capsys.readouterr().out
    table = text[text.index('part  '):]
    for line in (r'data +4 \+ 3 images', 'train the detector',
                 r'test the detector +box AP \d\.\d{3}, mask AP \d\.\d{3}', 'train the segmentor',
                 r'test the segmentor +mIoU 0\.\d{3}', 'all'):
        assert re.search(line + r'.* \d+:\d\d\n', table), line
    for name in ('detector', 'segmentor', 'detector_curves', 'segmentor_curves'):
        assert f'{name}.png' in table and cv2.imread(str(out / f'{name}.png')).shape[1] > 1000
    assert len(text.splitlines()) < 60

    # nothing changed: both are kept; an unfinished one goes on; another config trains anew
    demo.main(['--out', str(out)])
    assert capsys.readouterr().out.count('trained before, and nothing changed since: kept') == 2
    state = json.loads((out / 'segmentor/demo.json').read_text())
    (out / 'segmentor/demo.json').write_text(json.dumps({**state, 'finished': False}))
    Path(demo.DETECTOR).write_text(Path(demo.DETECTOR).read_text() + 'anything = 1\n')
    demo.main(['--out', str(out)])
    text = capsys.readouterr().out
    assert 'kept' not in text and text.count('goes on from iter_2.pth') == 1


def test_what_makes_a_training_stale(demo):
    before = demo.fingerprint(demo.DETECTOR)
    assert before == demo.fingerprint(demo.DETECTOR) != demo.fingerprint(demo.SEGMENTOR)
    Path(demo.DETECTOR).write_text(Path(demo.DETECTOR).read_text() + 'randomness = dict(seed=1)\n')
    assert demo.fingerprint(demo.DETECTOR) != before
    before = demo.fingerprint(demo.SEGMENTOR)
    build_digits(demo.DATA, num_train=4, num_val=2, force=True, log=lambda line: None)
    assert demo.fingerprint(demo.SEGMENTOR) != before


def test_failure_says_which_part(demo, tmp_path, capsys):
    Path(demo.DETECTOR).write_text(Path(demo.DETECTOR).read_text() + "model = dict(backbone=dict(depth=51))\n")
    with pytest.raises(SystemExit) as end:
        demo.main(['--out', str(tmp_path / 'out')])
    text = capsys.readouterr().out
    assert end.value.code == 1
    assert 'Part 2 of 4  the detector' in text and 'depth must be one of (50, 101, 152), got 51' in text
    assert 'train.log' in text and 'goes on from here' in text and 'Traceback' not in text


def test_images_are_spread(demo):
    assert demo.spread('abcdefghij', 5) == list('acegi') and demo.spread('abc', 8) == list('abc')


def test_log_lines_become_progress(demo):
    line = ('11/22 10:21:23 - mmengine - INFO - Epoch(train) [2][25/50]  lr: 8.5724e-04  eta: 0:09:30  time: 2.7446  '
            'data_time: 0.1115  grad_norm: 5.5783  loss: 2.1222  loss_rpn_cls: 0.1333')
    assert demo.training_progress(line) == 'iteration [2][25/50]  loss 2.12  9:30 left'
    line = ('11/22 10:21:23 - mmengine - INFO - Iter(train) [ 50/300]  base_lr: 8.5e-04 lr: 8.5724e-04  eta: 1:09:30  '
            'time: 2.7446  data_time: 0.1115  grad_norm: 5.5783  loss: 12.0222  decode.loss_ce: 0.1333')
    assert demo.training_progress(line) == 'iteration [ 50/300]  loss 12.02  69:30 left'
    line = ('... - INFO - Epoch(val) [2][10/10]    coco/bbox_mAP: 0.0310  coco/bbox_mAP_50: 0.0710  '
            'coco/segm_mAP: 0.0160  coco/segm_mAP_50: 0.0580')
    assert demo.training_progress(line) == 'evaluation: box AP 0.0310  mask AP 0.0160'
    assert demo.training_progress('11/22 10:20:09 - mmengine - INFO - Saving checkpoint at 1 epochs') is None
