"""Annotations of other categories than the config's are said before a model is built, and no others."""
import json
import os

import numpy as np
import pytest

for name in ('mmdet', 'mmseg'):
    pytest.importorskip(name)

import cv2  # noqa: E402
from mmengine.config import Config  # noqa: E402

from plugconv_mm.datasets import build_mini  # noqa: E402
from plugconv_mm.errors import ConfigError, DataError  # noqa: E402
from plugconv_mm.runtime.check_categories import categories_of, check_categories  # noqa: E402


def check(dataset, scope):
    check_categories(Config(dict(default_scope=scope, train_dataloader=dict(dataset=dict(
        type='RepeatDataset', times=1, dataset=dataset)))), 'train_dataloader')


def coco(folder, names, **dataset):
    (folder / 'own.json').write_text(json.dumps(dict(
        info=dict(description='"categories": ['), images=[], annotations=[],
        categories=[dict(id=i + 7, name=name) for i, name in enumerate(names)])))
    check(dict(dict(type='CocoDataset', data_root=str(folder), ann_file='own.json'), **dataset), 'mmdet')


def test_own_data_under_the_names_of_coco(tmp_path):
    with pytest.raises(DataError) as error:
        coco(tmp_path, ['apfel', 'birne'])
    text = str(error.value)
    assert f'{tmp_path}/own.json has other categories than the config (train_dataloader.dataset.dataset' in text
    assert 'annotated:  apfel, birne' in text and 'the config: person, bicycle' in text and 'and 68 more' in text
    assert "metainfo=dict(classes=('apfel', 'birne'))" in text
    assert '--cfg-options train_dataloader.dataset.dataset.metainfo.classes=' in text


@pytest.mark.parametrize('names, classes', [
    (['a', 'b'], ('a', 'b')), (['a', 'b', 'c'], ('a', 'c')), (['a', 'b'], ['b'])])
def test_some_of_the_categories_in_their_order(names, classes, tmp_path):
    coco(tmp_path, names, metainfo=dict(classes=classes))


@pytest.mark.parametrize('names, classes, said', [
    (['a', 'b'], ('b', 'a'), 'the categories in another order than'),  # mmdet would call each by the other's name
    (['a', 'c'], ('a', 'b', 'c'), 'other categories than'),  # c would be the second class
    (['a'], ('A', ), 'other categories than')])
def test_classes_that_would_be_numbered_wrongly(names, classes, said, tmp_path):
    with pytest.raises(DataError, match=said):
        coco(tmp_path, names, metainfo=dict(classes=classes))


def test_classes_in_a_file_and_as_a_text(tmp_path):
    (tmp_path / 'names.txt').write_text('a\nb\n')
    coco(tmp_path, ['a', 'b'], metainfo=dict(classes=str(tmp_path / 'names.txt')))
    with pytest.raises(ConfigError, match=r"metainfo.classes is the text 'a' .* a comma: \('a', \)"):
        coco(tmp_path, ['a'], metainfo=dict(classes='a'))


@pytest.mark.parametrize('content, expected', [
    ('{"categories" : [{"id": 1, "name": "ä]"}], "images": []}', ['ä]']),
    ('{"images": [], "categories":\n[]}', []),
    ('{"images": []}', None), ('', None), ('{"categories": [', None),
    ('{"annotations": [{"categories": [3, 4]}], "categories": [{"name": "a"}]}', ['a']),
    ('{"x": {"categories": [{"name": "b"}]}, "categories": [{"name": "a"}]}', None),
    (json.dumps(dict(categories=[dict(name=f'{i:0300}') for i in range(900)])), [f'{i:0300}' for i in range(900)]),
])
def test_names_in_a_file(content, expected, tmp_path):
    (tmp_path / 'x.json').write_text(content, encoding='utf-8')
    assert categories_of(str(tmp_path / 'x.json')) == expected


def test_voc(tmp_path):
    folder = tmp_path / 'VOC2012/Annotations'
    folder.mkdir(parents=True)
    for i, name in enumerate(['apfel', 'birne', 'birne']):
        (folder / f'{i}.xml').write_text(
            f'<annotation><object><name>{name}</name><part><name>dog</name></part></object></annotation>')
    dataset = dict(type='VOCDataset', data_root=str(tmp_path), ann_file='x', data_prefix=dict(sub_data_root='VOC2012/'))
    with pytest.raises(DataError, match='no object in .*Annotations is of a class of the config') as error:
        check(dataset, 'mmdet')
    assert "metainfo=dict(classes=('apfel', 'birne'))" in str(error.value)
    check(dict(dataset, metainfo=dict(classes=('birne', ))), 'mmdet')


def test_label_maps(tmp_path):
    (tmp_path / 'labels').mkdir()
    cv2.imwrite(str(tmp_path / 'labels/a.png'), np.array([[0, 3], [255, 1]], np.uint8))
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), data_prefix=dict(seg_map_path='labels'))

    def check_with(classes, **more):
        check(dict(dataset, metainfo=dict(classes=tuple(classes)), **more), 'mmseg')

    check_with('abcd', reduce_zero_label=False)
    check_with('abc', reduce_zero_label=True)
    with pytest.raises(DataError, match='a.png has the label 3, and the 3 classes of the config have .* 0 to 2'):
        check_with('abc')
    with pytest.raises(DataError, match='label 3, and the 2 classes .* 1 to 2, and 0 for what has no class'):
        check_with('ab', reduce_zero_label=True)
    check_with('abc', ignore_index=3)
    check(dict(dataset, type='ADE20KDataset'), 'mmseg')


def test_mini_datasets_pass(tmp_path, monkeypatch):
    build_mini(tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    for ann_file in os.listdir('data/coco/annotations'):
        if ann_file.endswith('.json'):
            kind = 'CocoPanopticDataset' if 'panoptic' in ann_file else 'CocoDataset'
            check(dict(type=kind, data_root='data/coco/', ann_file=f'annotations/{ann_file}'), 'mmdet')
