"""Missing data are said before a model is built."""
import os
import re

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from own_configs import CONFIGS, load  # noqa: E402

from plugconv_mm.datasets import build_mini  # noqa: E402
from plugconv_mm.errors import DataError  # noqa: E402
from plugconv_mm.runtime.check_data import check_data  # noqa: E402


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'mini'
    build_mini(out)
    return out


def check(name):
    check_data(load(name), 'train_dataloader', 'val_dataloader')


@pytest.mark.parametrize('name', CONFIGS)
def test_whole_data_pass(name, mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(mini, 'data')
    check(name)


@pytest.mark.parametrize('name, gone, seen, tree', [
    ('coco', 'coco/val2017', ['data/coco/val2017/   (val_dataloader)'], 'data/coco/train2017/*.jpg'),
    ('coco', 'coco/annotations/instances_val2017.json',
     ['data/coco/annotations/instances_val2017.json   (val_dataloader, val_evaluator)',
      '--cfg-options val_dataloader.dataset.data_root=FOLDER val_evaluator.ann_file=PATH'],
     'annotations/instances_{train,val}2017.json'),
    ('coco', 'coco', ['data/coco/   (train_dataloader, val_dataloader)',
                      'data/coco/annotations/instances_val2017.json   (val_evaluator)'], 'data/coco/val2017/*.jpg'),
    ('panoptic', 'coco/annotations/panoptic_train2017',
     ['data/coco/annotations/panoptic_train2017/   (train_dataloader)'],
     'data/coco/annotations/panoptic_{train,val}2017/*.png'),
    ('ade', 'ade/ADEChallengeData2016/annotations/validation',
     ['data/ade/ADEChallengeData2016/annotations/validation   (val_dataloader)'],
     'data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg'),
    ('voc', 'VOCdevkit/VOC2012/Annotations', ['data/VOCdevkit/VOC2012/Annotations   (train_dataloader)',
      '--cfg-options train_dataloader.dataset.dataset.datasets.1.data_root=FOLDER'],
     'data/VOCdevkit/VOC2007/ImageSets/Main/{trainval,test}.txt'),
    ('cityscapes', 'cityscapes/gtFine/val', ['data/cityscapes/gtFine/val   (val_dataloader)'],
     'data/cityscapes/gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png'),
    ('voc12aug', 'VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt',
     ['data/VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt   (train_dataloader)'],
     'data/VOCdevkit/VOC2012/SegmentationClassAug/*.png'),
    ('imagenet', 'imagenet/val', ['data/imagenet/val   (val_dataloader)'], 'data/imagenet/train/n01440764/*.JPEG'),
])
def test_missing_data(name, gone, seen, tree, mini, tmp_path, monkeypatch):
    """It says which files, where it looked, how the folder should look, and what to do."""
    monkeypatch.chdir(tmp_path)
    for path in mini.rglob('*'):
        target, path = tmp_path / 'data' / path.relative_to(mini), path.resolve()
        if path.is_file() and not target.is_relative_to(tmp_path / 'data' / gone):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path, target)
    with pytest.raises(DataError) as error:
        check(name)
    text = str(error.value)
    assert all(line in text for line in seen) and tree in text
    assert f'looked for from {tmp_path}' in text and re.search(r'_dataloader\.dataset[.\w]*\.data_root=FOLDER', text)


def test_an_empty_folder_is_missing(mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    os.symlink(mini / 'ade', 'data/ade')
    check('ade')
    os.unlink('data/ade')
    for part in ('images/training', 'images/validation', 'annotations/training', 'annotations/validation'):
        (tmp_path / 'data/ade/ADEChallengeData2016' / part).mkdir(parents=True)
    with pytest.raises(DataError, match='images/training .*train_dataloader'):
        check('ade')
