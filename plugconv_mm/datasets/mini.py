"""Mini data sets with the layouts of COCO 2017, ADE20K, Cityscapes, PASCAL VOC 2007 + 2012 and ImageNet.

They have a few images each and the class lists of the real sets, so that a config for a real set runs as written. The
images are those of :mod:`plugconv_mm.datasets.digits`; the classes assigned to the digits are arbitrary::

    coco/annotations/{instances,panoptic}_{train,val}2017.json   80 things in polygons and one crowd, 53 stuff
         annotations/panoptic_{train,val}2017/*.png
         {train,val}2017/*.jpg
    ade/ADEChallengeData2016/images/{training,validation}/*.jpg
                             annotations/{training,validation}/*.png   0 unlabelled, 1-150
    cityscapes/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
               gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png      0-18, 255 ignored
    VOCdevkit/VOC{2007,2012}/Annotations/*.xml  ImageSets/Main/*.txt  JPEGImages/*.jpg
             /VOC2012/SegmentationClass{,Aug}/*.png  ImageSets/Segmentation/*.txt   0 background, 1-20, 255 ignored
    imagenet/train/n01440764/*.JPEG  val/*.JPEG  meta/{train,val}.txt
    imagenet21k/train/n01440764/*.JPEG  meta/train.txt
"""
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from plugconv_mm.atomic_write import atomic_folder
from plugconv_mm.datasets.digits import digit_images
from plugconv_mm.errors import DataError

# The identifiers of COCO's 80 things and 53 stuff classes have gaps.
THING_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))
STUFF_IDS = (92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151,
             154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201))
THINGS = (
    'person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, '
    'parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, '
    'handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, '
    'skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, '
    'sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining '
    'table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, '
    'refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush').split(', ')
STUFF = (
    'banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood, flower, fruit, gravel, house, '
    'light, mirror-stuff, net, pillow, platform, playingfield, railroad, river, road, roof, sand, sea, shelf, '
    'snow, stairs, tent, towel, wall-brick, wall-stone, wall-tile, wall-wood, water-other, window-blind, '
    'window-other, tree-merged, fence-merged, ceiling-merged, sky-other-merged, cabinet-merged, table-merged, '
    'floor-other-merged, pavement-merged, mountain-merged, grass-merged, dirt-merged, paper-merged, '
    'food-other-merged, building-other-merged, rock-merged, wall-other-merged, rug-merged').split(', ')
VOC_CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable',
               'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
# the folders of ImageNet's classes 0 to 9
WORDNET_IDS = ('n01440764', 'n01443537', 'n01484850', 'n01491361', 'n01494475', 'n01496331', 'n01498041', 'n01514668',
               'n01514859', 'n01518878')
MANIFEST = 'mini.json'
_SPLITS = dict(train=4, val=2)  # images of each
_SKY, _GRASS = 187, 193  # COCO's stuff classes of the upper and the lower half of an image
_IGNORED = 255  # pixels of Cityscapes and VOC without a class

Drawn = dict[str, list[tuple[np.ndarray, list[dict]]]]  # images with their digits, by split


def build_mini(out: str | os.PathLike) -> dict[str, int]:
    """Build all of them into a folder, in about a second.

    Args:
        out: The folder. An earlier build in it is replaced.

    Returns:
        Number of images by data set.

    Raises:
        DataError: ``out`` holds files that this function did not write.
    """
    out = Path(out)
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f'{out} exists and holds something else; it stays as it is. Choose another folder.')
    with atomic_folder(out) as folder:
        drawn = {split: _draw(split, count) for split, count in _SPLITS.items()}
        for write, name in ((_write_coco, 'coco'), (_write_ade, 'ade/ADEChallengeData2016'),
                            (_write_cityscapes, 'cityscapes'), (_write_voc, 'VOCdevkit'), (_write_imagenet, '.')):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write(folder / name, drawn)
        counts = {path.name: sum(1 for p in path.rglob('*') if p.suffix in ('.jpg', '.JPEG')
                                 or p.name.endswith('_leftImg8bit.png'))
                  for path in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps(counts, indent=2) + '\n')
    return counts


def _draw(split: str, count: int) -> list[tuple[np.ndarray, list[dict]]]:
    """Draw images with their digits, the first half of them in portrait format and the rest in landscape format."""
    kept = {True: [], False: []}
    for image, _, _, digits in digit_images(split, sizes=(144, 176), digit_sizes=(48, 72), seed=0):
        height, width = image.shape[:2]
        if height != width and len(kept[height > width]) < count // 2:
            kept[height > width].append((image, digits))
        if len(kept[True]) + len(kept[False]) == count:
            return kept[True] + kept[False]


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, (H, W, 3) of RGB colours or a map (H, W) of labels, in the format of the name."""
    import cv2
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = '.png' if path.suffix == '.png' else '.jpg'
    path.write_bytes(cv2.imencode(kind, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())


def _masks(digits: list[dict]) -> list[np.ndarray]:
    from pycocotools import mask as rle
    return [rle.decode(digit['segmentation']).astype(bool) for digit in digits]


def _polygons(mask: np.ndarray) -> list[list[int]]:
    import cv2
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [outline.reshape(-1).tolist() for outline in outlines if len(outline) >= 3]


def _write_coco(root: Path, drawn: Drawn) -> None:
    things, stuff = ([dict(id=i, name=name, isthing=isthing, color=[i] * 3) for i, name in zip(ids, names, strict=True)]
                     for ids, names, isthing in ((THING_IDS, THINGS, 1), (STUFF_IDS, STUFF, 0)))
    (root / 'annotations').mkdir()
    for split, images in drawn.items():
        records, annotations, segments = [], [], []
        for n, (image, digits) in enumerate(images):
            height, width = image.shape[:2]
            image_id, name = 1000 * n + 139, f'{1000 * n + 139:012d}'
            records.append(dict(id=image_id, file_name=f'{name}.jpg', height=height, width=width))
            _write_image(root / f'{split}2017' / f'{name}.jpg', image)
            ids = np.full((height, width), _GRASS, np.int64)
            ids[:height // 2] = _SKY
            parts = []
            for mask, digit in zip(_masks(digits), digits, strict=True):
                thing = dict(id=len(annotations) + 1001, category_id=THING_IDS[len(annotations) * 7 % 80], iscrowd=0,
                             bbox=digit['bbox'], area=digit['area'])
                annotations.append(dict(thing, image_id=image_id, segmentation=_polygons(mask)))
                ids[mask] = thing['id']
                parts.append(thing)
            if n == 0:  # a crowd in the last row, run lengths down the columns
                runs = [height - 1] + [1, height - 1] * (width - 1) + [1]
                annotations.append(dict(id=len(annotations) + 1001, image_id=image_id, category_id=1, iscrowd=1,
                                        bbox=[0, height - 1, width, 1], area=width,
                                        segmentation=dict(counts=runs, size=[height, width])))
            for i, top, bottom in ((_SKY, 0, height // 2), (_GRASS, height // 2, height)):
                parts.append(dict(id=i, category_id=i, iscrowd=0, bbox=[0, top, width, bottom - top],
                                  area=int((ids == i).sum())))
            segments.append(dict(image_id=image_id, file_name=f'{name}.png', segments_info=parts))
            colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
            _write_image(root / f'annotations/panoptic_{split}2017' / f'{name}.png', colours)
        for kind, entries, categories in (('instances', annotations, things), ('panoptic', segments, things + stuff)):
            text = json.dumps(dict(info=dict(description='mini COCO 2017'), licenses=[], images=records,
                                   annotations=entries, categories=categories))
            (root / f'annotations/{kind}_{split}2017.json').write_text(text)


def _write_ade(root: Path, drawn: Drawn) -> None:
    for split, name in (('train', 'training'), ('val', 'validation')):
        number = 0
        for n, (image, digits) in enumerate(drawn[split]):
            labels = np.full(image.shape[:2], 10, np.uint8)  # grass
            labels[:len(labels) // 2] = 3  # sky
            labels[0] = 0
            for mask in _masks(digits):
                labels[mask] = 150 - number * 7 % 140
                number += 1
            _write_image(root / f'images/{name}/ADE_{split}_{n + 1:08d}.jpg', image)
            _write_image(root / f'annotations/{name}/ADE_{split}_{n + 1:08d}.png', labels)


def _class_map(shape: tuple[int, ...], digits: list[dict], upper: int, lower: int,
               objects: Iterator[int]) -> np.ndarray:
    """A map (H, W) of two classes, those of the upper and the lower half, with objects; the first row has no class."""
    labels = np.full(shape, lower, np.uint8)
    labels[:len(labels) // 2] = upper
    labels[0] = _IGNORED
    for mask in _masks(digits):
        labels[mask] = next(objects)
    return labels


def _write_cityscapes(root: Path, drawn: Drawn) -> None:
    objects = (number * 7 % 19 for number in itertools.count())
    for split, images in drawn.items():
        for n, (image, digits) in enumerate(images):
            city = dict(train='aachen', val='frankfurt')[split]
            name = f'{split}/{city}/{city}_{n:06d}_000019'
            _write_image(root / f'leftImg8bit/{name}_leftImg8bit.png', image)
            _write_image(root / f'gtFine/{name}_gtFine_labelTrainIds.png',
                         _class_map(image.shape[:2], digits, 10, 0, objects))  # sky and road


def _write_voc(root: Path, drawn: Drawn) -> None:
    number = 0
    for year, lists in (('2007', dict(train='train', val='train', trainval='train', test='val')),
                        ('2012', dict(train='train', val='train', trainval='train'))):
        home = root / f'VOC{year}'
        (home / 'ImageSets/Main').mkdir(parents=True)
        (home / 'Annotations').mkdir()
        names = {split: [f'{year}_{split}_{n:06d}' for n in range(len(images))] for split, images in drawn.items()}
        for name, split in lists.items():
            (home / f'ImageSets/Main/{name}.txt').write_text(''.join(f'{n}\n' for n in names[split]))
        for split in set(lists.values()):
            for name, (image, digits) in zip(names[split], drawn[split], strict=True):
                _write_image(home / f'JPEGImages/{name}.jpg', image)
                height, width = image.shape[:2]
                tree = ElementTree.Element('annotation')
                _fill(tree, dict(folder=f'VOC{year}', filename=f'{name}.jpg',
                                 size=dict(width=width, height=height, depth=3), segmented=0))
                for digit in digits:
                    x, y, w, h = (int(v) for v in digit['bbox'])
                    _fill(ElementTree.SubElement(tree, 'object'), dict(
                        name=VOC_CLASSES[number % 20], pose='Unspecified', truncated=0, difficult=0,
                        bndbox=dict(xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)))
                    number += 3
                ElementTree.ElementTree(tree).write(home / f'Annotations/{name}.xml')
    _write_voc_segmentation(root / 'VOC2012', drawn)


def _write_voc_segmentation(home: Path, drawn: Drawn) -> None:
    (home / 'ImageSets/Segmentation').mkdir()
    objects = (1 + number * 7 % 20 for number in itertools.count())
    for name, folder, split, part in (('train', '', 'train', slice(2)), ('aug', 'Aug', 'train', slice(2, None)),
                                      ('val', '', 'val', slice(None))):
        names = []
        for n, (image, digits) in list(enumerate(drawn[split]))[part]:
            names.append(f'2012_{split}_{n:06d}')
            _write_image(home / f'JPEGImages/{names[-1]}.jpg', image)
            _write_image(home / f'SegmentationClass{folder}/{names[-1]}.png',
                         _class_map(image.shape[:2], digits, 0, 0, objects))
        (home / f'ImageSets/Segmentation/{name}.txt').write_text(''.join(f'{n}\n' for n in names))


def _fill(element: ElementTree.Element, values: dict) -> None:
    """Add children with these names and texts, dicts as children with children of their own."""
    for key, value in values.items():
        child = ElementTree.SubElement(element, key)
        if isinstance(value, dict):
            _fill(child, value)
        else:
            child.text = str(value)


def _write_imagenet(root: Path, drawn: Drawn) -> None:
    for name, splits in (('imagenet', drawn), ('imagenet21k', dict(train=drawn['train']))):
        (root / name / 'meta').mkdir(parents=True)
        for split, images in splits.items():
            lines = []
            for n, (image, digits) in enumerate(images):
                label = digits[0]['category_id'] - 1
                path = f'ILSVRC2012_val_{n + 1:08d}.JPEG'
                if split == 'train':
                    path = f'{WORDNET_IDS[label]}/{WORDNET_IDS[label]}_{n + 1}.JPEG'
                _write_image(root / name / split / path, image)
                lines.append(f'{path} {label}\n')
            (root / name / f'meta/{split}.txt').write_text(''.join(lines))
