import json
from collections import Counter

import numpy as np
import pytest

from plugconv_mm.datasets import build_mini
from plugconv_mm.datasets import mini as mini_data
from plugconv_mm.errors import DataError


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'mini'
    counts = build_mini(out)
    assert counts == dict(VOCdevkit=12, ade=6, cityscapes=6, coco=6, imagenet=6, imagenet21k=4)
    return out


def test_class_lists_are_those_of_openmmlab():
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset, CocoPanopticDataset, VOCDataset
    meta = CocoPanopticDataset.METAINFO
    assert tuple(mini_data.THINGS) == tuple(meta['thing_classes']) == tuple(CocoDataset.METAINFO['classes'])
    assert tuple(mini_data.STUFF) == tuple(meta['stuff_classes'])
    assert mini_data.VOC_CLASSES == tuple(VOCDataset.METAINFO['classes'])
    assert len(mini_data.THING_IDS) == 80 and mini_data.THING_IDS[-1] == 90
    assert len(mini_data.STUFF_IDS) == 53 and mini_data.STUFF_IDS[0] == 92 and mini_data.STUFF_IDS[-1] == 200


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco(mini, split):
    import cv2
    from pycocotools.coco import COCO
    coco = COCO(str(mini / f'coco/annotations/instances_{split}2017.json'))
    panoptic = json.loads((mini / f'coco/annotations/panoptic_{split}2017.json').read_text())
    assert [c['id'] for c in panoptic['categories']] == [*mini_data.THING_IDS, *mini_data.STUFF_IDS]
    assert sum(c['isthing'] for c in panoptic['categories']) == len(coco.getCatIds()) == 80
    crowds = 0
    for record, entry in zip(coco.loadImgs(coco.getImgIds()), panoptic['annotations'], strict=True):
        assert entry['image_id'] == record['id']
        image = cv2.imread(str(mini / f'coco/{split}2017' / record['file_name']))
        assert image.shape == (record['height'], record['width'], 3)
        blue, green, red = np.moveaxis(
            cv2.imread(str(mini / f'coco/annotations/panoptic_{split}2017' / entry['file_name'])).astype(int), -1, 0)
        ids = red + 256 * green + 256**2 * blue
        segments = {s['id']: s for s in entry['segments_info']}
        assert set(np.unique(ids)) == set(segments)
        assert {i: int((ids == i).sum()) for i in segments} == {i: s['area'] for i, s in segments.items()}
        for annotation in coco.loadAnns(coco.getAnnIds(record['id'])):
            mask = coco.annToMask(annotation).astype(bool)
            if annotation['iscrowd']:
                assert isinstance(annotation['segmentation'], dict) and mask.sum() == annotation['area']
                crowds += 1
                continue
            drawn = ids == annotation['id']
            # polygons go through the outermost pixels, and close the holes of a 0, 6, 8 or 9
            assert mask[drawn].mean() > 0.8 and segments[annotation['id']]['category_id'] == annotation['category_id']
            assert np.flatnonzero(drawn.any(0))[0] == annotation['bbox'][0]
    assert crowds == 1


def test_images_fill_batches_of_one_orientation(mini):
    images = json.loads((mini / 'coco/annotations/instances_train2017.json').read_text())['images']
    assert Counter(i['width'] > i['height'] for i in images) == {True: 2, False: 2}


def test_stock_dataset_classes_read_them(mini):
    for name in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(name)
    import mmpretrain.datasets
    from mmdet.datasets import CocoDataset, CocoPanopticDataset, VOCDataset
    from mmseg.datasets import ADE20KDataset, CityscapesDataset, PascalVOCDataset
    coco = CocoDataset(data_root=str(mini / 'coco'), ann_file='annotations/instances_train2017.json',
                       data_prefix=dict(img='train2017/'), filter_cfg=dict(filter_empty_gt=True, min_size=32))
    assert len(coco) == 4
    labels = [i['bbox_label'] for n in range(4) for i in coco.get_data_info(n)['instances']]
    assert len(labels) > 8 and max(labels) > 50
    panoptic = CocoPanopticDataset(
        data_root=str(mini / 'coco'), ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'))
    assert len(panoptic) == 2 and {s['category'] for s in panoptic.get_data_info(0)['segments_info']} > {119, 125}
    for year in ('2007', '2012'):
        voc = VOCDataset(data_root=str(mini / 'VOCdevkit'), ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
                         data_prefix=dict(sub_data_root=f'VOC{year}/'),
                         filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=32))
        instances = [i for n in range(4) for i in voc.get_data_info(n)['instances']]
        assert len(voc) == 4 and sum(not i['ignore_flag'] for i in instances) > 4
    ade = ADE20KDataset(data_root=str(mini / 'ade/ADEChallengeData2016'), data_prefix=dict(
        img_path='images/training', seg_map_path='annotations/training'))
    assert len(ade) == 4
    for split, number in (('train', 4), ('val', 2)):
        cityscapes = CityscapesDataset(data_root=str(mini / 'cityscapes'), data_prefix=dict(
            img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'))
        assert len(cityscapes) == number
    for split, folder, number in (('train', '', 2), ('aug', 'Aug', 2), ('val', '', 2)):
        voc = PascalVOCDataset(
            data_root=str(mini / 'VOCdevkit/VOC2012'), ann_file=f'ImageSets/Segmentation/{split}.txt',
            data_prefix=dict(img_path='JPEGImages', seg_map_path=f'SegmentationClass{folder}'))
        assert len(voc) == number
    for name, kind, prefix, count in (('imagenet', 'ImageNet', 'train', 4), ('imagenet', 'ImageNet', 'val', 2),
                                      ('imagenet21k', 'ImageNet21k', 'train', 4)):
        dataset = getattr(mmpretrain.datasets, kind)(data_root=str(mini / name), split=prefix)
        assert len(dataset) == count and all(0 <= label <= 9 for label in dataset.get_gt_labels())


def test_ade_labels(mini):
    import cv2
    seen = set()
    for path in (mini / 'ade/ADEChallengeData2016/annotations').rglob('*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        image = cv2.imread(str(path).replace('annotations', 'images').replace('.png', '.jpg'))
        assert labels.dtype == np.uint8 and labels.shape == image.shape[:2]
        seen |= set(np.unique(labels).tolist())
    assert {0, 3, 10} < seen and max(seen) == 150 and len(seen) > 10


@pytest.mark.parametrize('images, maps, classes, upper', [
    ('cityscapes/leftImg8bit/*/*/{}_leftImg8bit.png', 'cityscapes/gtFine/*/*/*_gtFine_labelTrainIds.png', 19, {0, 10}),
    ('VOCdevkit/VOC2012/JPEGImages/{}.jpg', 'VOCdevkit/VOC2012/SegmentationClass*/*.png', 21, {0})])
def test_labels_of_cityscapes_and_voc(mini, images, maps, classes, upper):
    """As large as their images; classes of the set, or 255, which is no class."""
    import cv2
    seen, paths = set(), sorted(mini.glob(maps))
    assert len(paths) == 6
    for path in paths:
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        image, = mini.glob(images.format(path.stem.removesuffix('_gtFine_labelTrainIds')))
        assert labels.dtype == np.uint8 and cv2.imread(str(image)).shape[:2] == labels.shape
        seen |= set(np.unique(labels).tolist())
    assert upper | {255} < seen and max(seen - {255}) < classes and len(seen) > 10


def test_again_gives_the_same_and_replaces(mini, tmp_path):
    build_mini(tmp_path / 'mini')
    (tmp_path / 'mini/coco/annotations/instances_train2017.json').write_text('damaged')
    build_mini(tmp_path / 'mini')
    files = sorted(p.relative_to(mini) for p in mini.rglob('*') if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / 'mini') for p in (tmp_path / 'mini').rglob('*') if p.is_file())
    assert all((mini / f).read_bytes() == (tmp_path / 'mini' / f).read_bytes() for f in files)


def test_a_folder_of_the_users_is_not_touched(tmp_path):
    (tmp_path / 'thesis.tex').write_text('mine')
    with pytest.raises(DataError, match='holds something else'):
        build_mini(tmp_path)
    assert (tmp_path / 'thesis.tex').read_text() == 'mine'
