"""COCO's figures by faster-coco-eval beside those of pycocotools."""
import sys

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
faster_coco_eval = pytest.importorskip('faster_coco_eval')

from mmdet.evaluation.metrics import CocoMetric, coco_metric  # noqa: E402
from repository import tool  # noqa: E402

from plugconv_mm.datasets import build_digits  # noqa: E402
from plugconv_mm.engine.metrics import FasterCocoMetric  # noqa: E402
from plugconv_mm.errors import ConfigError, MissingPackageError  # noqa: E402
from plugconv_mm.registry import METRICS  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'digits'
    build_digits(out, num_train=1, num_val=6, log=lambda line: None)
    return str(out / 'annotations/instances_val.json')


def samples(metric):
    """Several displaced boxes and masks for each object, some of another class; an image without any."""
    generator, coco = np.random.default_rng(0), metric._coco_api
    for image in list(coco.imgs.values())[:-1]:
        boxes, labels, masks = [], [], []
        for annotation in coco.imgToAnns[image['id']]:
            x, y, w, h = annotation['bbox']
            for _ in range(4):
                left, top, right, bottom = generator.uniform(-0.15, 0.15, 4)
                boxes.append([x + w * left, y + h * top, x + w * (1 + right), y + h * (1 + bottom)])
                labels.append(generator.choice([annotation['category_id'] - 1, generator.integers(10)]))
                masks.append(np.roll(coco.annToMask(annotation), generator.integers(-2, 3), axis=1))
        yield dict(img_id=image['id'], ori_shape=(image['height'], image['width']),
                   pred_instances=dict(bboxes=torch.tensor(boxes), labels=torch.tensor(labels),
                                       scores=torch.tensor(generator.random(len(boxes))),
                                       masks=torch.tensor(np.array(masks), dtype=torch.bool)))


def evaluate(metric, monkeypatch, place, name):
    """Figures of a metric, and the unrounded ones of the evaluations that it runs."""
    made = []

    class Kept(getattr(place, name)):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(place, name, Kept)
    metric = metric()
    metric.dataset_meta = dict(classes=tuple(category['name'] for category in metric._coco_api.cats.values()))
    predictions = list(samples(metric))
    metric.process({}, predictions)
    return metric.evaluate(len(predictions)), [np.array(evaluation.stats)[:12] for evaluation in made]


def test_figures_of_pycocotools(annotations, monkeypatch):
    """Boxes, masks and proposals: all figures, by class too, are those of CocoMetric, before they are rounded."""
    options = dict(ann_file=annotations, metric=['bbox', 'segm', 'proposal'], classwise=True)
    expected, exact = evaluate(lambda: CocoMetric(**options), monkeypatch, coco_metric, 'COCOeval')
    own = dict(type='plugconv_mm.FasterCocoMetric', use_mp_eval=True, **options)
    got, stats = evaluate(lambda: METRICS.build(own), monkeypatch, faster_coco_eval, 'COCOeval_faster')
    assert got == pytest.approx(expected, abs=1e-6, nan_ok=True) and len(got) > 20
    assert 0.1 < got['coco/bbox_mAP'] < 0.9 and got['coco/bbox_mAP'] != got['coco/segm_mAP']
    assert len(stats) == 3
    np.testing.assert_allclose(stats, exact, atol=1e-6)
    assert coco_metric.COCOevalMP.__name__ == 'COCOevalMP'  # is again what it was


def test_missing_package(annotations, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(MissingPackageError, match='pip install faster-coco-eval'):
        FasterCocoMetric(ann_file=annotations)


def test_option_of_the_test(tmp_path):
    """The option puts it in the place of each CocoMetric, and needs one."""
    test = tool('test')
    checkpoint = tmp_path / 'x.pth'
    checkpoint.write_bytes(b'')
    for name, kinds in (('mask-rcnn_parc-resnet50-thin_horfpn', ['plugconv_mm.FasterCocoMetric']),
                        ('upernet_parc-resnet50-thin', None)):
        args = test.parse_args([f'configs/digits/{name}_digits.py', str(checkpoint), '--faster-coco'])
        cfg = load_config(args)
        if kinds is None:
            with pytest.raises(ConfigError, match='needs a CocoMetric in test_evaluator'):
                test.merge(cfg, args)
        else:
            test.merge(cfg, args)
            assert [cfg.test_evaluator.type] == kinds
