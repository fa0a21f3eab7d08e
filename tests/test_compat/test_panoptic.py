"""The stand-in for panopticapi."""
import importlib
import sys
import types

import numpy as np
import pytest

from plugconv_mm.compat import panoptic


def test_colours_and_identifiers():
    ids = np.array([[0, 1, 255], [256, 65536 * 3 + 256 * 2 + 1, 256**3 - 1]])
    colours = panoptic.id2rgb(ids)
    assert colours.shape == (2, 3, 3) and colours.dtype == np.uint8
    assert colours[1, 1].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(panoptic.rgb2id(colours), ids)


def test_quality():
    """Two categories, one thing and one stuff, and a third that does not occur."""
    first, second = panoptic.PQStat(), panoptic.PQStat()
    first[1].tp, first[1].iou, first[1].fn = 1, 0.8, 1
    second[1].tp, second[1].iou, second[7].fp = 1, 0.6, 2
    first += second
    categories = {1: dict(isthing=1), 7: dict(isthing=0), 9: dict(isthing=0)}
    means, single = first.pq_average(categories, isthing=True)
    assert means == dict(pq=pytest.approx(1.4 / 2.5), sq=pytest.approx(0.7), rq=pytest.approx(2 / 2.5), n=1)
    assert set(single) == {1}
    means, single = first.pq_average(categories, isthing=None)
    assert means['n'] == 2 and means['pq'] == pytest.approx(1.4 / 2.5 / 2)
    assert single[7] == single[9] == dict(pq=0., sq=0., rq=0.)
    assert first.pq_average(categories, isthing=False)[0] == dict(pq=0., sq=0., rq=0., n=1)


def test_an_installed_one_goes_first(tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.partition('.')[0] == 'panopticapi':
            monkeypatch.delitem(sys.modules, name)
    if not isinstance(importlib.util.find_spec('panopticapi').loader, panoptic._PanopticFinder):
        pytest.skip('the real one is installed')
    (tmp_path / 'panopticapi').mkdir()
    (tmp_path / 'panopticapi/__init__.py').write_text('real = True')
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module('panopticapi')
    monkeypatch.delitem(sys.modules, 'panopticapi')
    assert isinstance(module, types.ModuleType) and module.real


def test_mmdet_finds_it():
    pytest.importorskip('mmdet')
    from mmdet.evaluation.metrics import coco_panoptic_metric
    assert coco_panoptic_metric.PQStat is not None
    assert coco_panoptic_metric.rgb2id(np.array([[[1, 1, 0]]])).tolist() == [[257]]
