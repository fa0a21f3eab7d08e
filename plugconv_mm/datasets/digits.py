"""Handwritten digits on photographs: a small detection and segmentation data set that needs no download.

The digits are scikit-learn's ``load_digits`` (1797 samples of 8x8, the UCI optical recognition set), the backgrounds
are crops of scikit-learn's two sample photographs. The same images are laid out twice, once like COCO and once like
ADE20K, so that the stock dataset classes of mmdet and mmseg read them::

    data/digits/
        digits.json                               the settings, the number of files in each folder, and hashes
        annotations/instances_{train,val}.json    COCO: 10 classes, compressed RLE masks
        train/*.jpg  val/*.jpg
        images/{training,validation}/*.jpg        ADE20K: the same images
        annotations/{training,validation}/*.png   0 unlabelled (never used), 1 background, 2-11 the digits 0-9

No digit sample and no pixel of a photograph is in both splits. The same seed gives the same bytes.
"""
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plugconv_mm.atomic_write import atomic_folder
from plugconv_mm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sklearn.utils import Bunch

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
MANIFEST = 'digits.json'
_VERSION = 2  # to be raised with every change to the drawing of images
_SPLITS = ('train', 'val')
_ADE_NAMES = {'train': 'training', 'val': 'validation'}
_ENTRIES = {MANIFEST, 'annotations', 'images', *_SPLITS}
_VAL_WIDTH = 192  # columns of each photograph that are kept for validation
_VAL_SIDE = {'china': 'right', 'flower': 'left'}  # the side of the photograph where they are
_VAL_SHARE = 0.2  # the part of each digit's samples that is kept for validation
_GAP = 2  # pixels between the boxes of two digits


def check_digits(root: str | os.PathLike,
                 command: str = 'python tools/dataset_converters/digits.py --out {data_root}') -> dict:
    """Check that a folder holds a complete set of digits.

    Args:
        root: The folder.
        command: The command that builds it, for the message. ``{data_root}`` stands for ``root``.

    Returns:
        The manifest, with the settings of the set.

    Raises:
        DataError: The folder is missing, or its set is incomplete or damaged.
    """
    root = Path(root)
    fix = f'Build it, in a few seconds, with\n    {command.format(data_root=root)}'
    if not root.is_dir():
        raise DataError(f'the data folder {root} is not there. {fix}')
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        for path, count in manifest['counts'].items():
            found = sum(1 for _ in (root / path).iterdir())
            if found != count:
                raise DataError(f'the data folder {root} is half-built: {path} holds {found} of {count} files. {fix}')
        for path, digest in manifest['sha256'].items():
            if hashlib.sha256((root / path).read_bytes()).hexdigest() != digest:
                raise DataError(f'the data folder {root} is damaged: {path} is not the file that was written. {fix}')
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f'the data folder {root} is half-built ({error}). {fix}') from error
    return manifest


def build_digits(out: str | os.PathLike, num_train: int = 400, num_val: int = 80, sizes: tuple[int, int] = (160, 192),
                 digit_sizes: tuple[int, int] = (24, 64), seed: int = 0, force: bool = False,
                 log: Callable[[str], object] = print) -> dict:
    """Build the data set into a folder, which is only written if the build is completed.

    Args:
        out: The folder. A complete set with the same settings is left as it is; an incomplete one is replaced.
        num_train: Number of training images.
        num_val: Number of validation images.
        sizes: Shortest and longest side of an image, in pixels; each side is drawn independently, in steps of 8.
        digit_sizes: Shortest and longest side that the 8x8 samples are scaled to, in pixels.
        seed: Seed of all random choices.
        force: Replace a complete set that was built with other settings.
        log: Takes one line of progress.

    Returns:
        The manifest.

    Raises:
        ConfigError: A setting is out of range.
        DataError: ``out`` holds files that this function did not write, or a set with other settings.
    """
    out = Path(out)
    if num_train < 1 or num_val < 1:
        raise ConfigError(f'num_train and num_val must be at least 1, got {num_train} and {num_val}')
    if not 8 <= digit_sizes[0] <= digit_sizes[1]:
        raise ConfigError(f'digit_sizes must be two numbers, 8 <= smallest <= largest, got {tuple(digit_sizes)}')
    if not 2 * digit_sizes[1] <= sizes[0] <= sizes[1]:
        raise ConfigError(f'sizes must be two numbers, smallest <= largest, and images at least twice as large '
                          f'as the largest digit ({digit_sizes[1]} pixels), got {tuple(sizes)}')
    settings = dict(version=_VERSION, num_train=num_train, num_val=num_val, sizes=list(sizes),
                    digit_sizes=list(digit_sizes), seed=seed)
    if out.exists() and (not out.is_dir() or not {p.name for p in out.iterdir()} <= _ENTRIES):
        raise DataError(f'{out} exists and holds something else; it stays as it is. Choose another folder.')
    if out.is_dir() and any(out.iterdir()):
        try:
            manifest = check_digits(out)
        except DataError:
            log(f'{out} is half-built: building it anew')
        else:
            if manifest['settings'] == settings and not force:
                log(f'{out} is there and complete')
                return manifest
            if not force:
                raise DataError(f'{out} holds a set built with other settings ({manifest["settings"]}). '
                                'Choose another folder, or replace it with --force.')
    with atomic_folder(out) as folder:
        return _write(folder, settings, log)


def _write(root: Path, settings: dict, log: Callable[[str], object]) -> dict:
    """Write the data set into an empty folder; returns its manifest."""
    import cv2
    (root / 'annotations').mkdir()
    counts, hashes = {}, {}
    for split in _SPLITS:
        ade = _ADE_NAMES[split]
        folders = [root / split, root / 'images' / ade, root / 'annotations' / ade]
        for folder in folders:
            folder.mkdir(parents=True)
        total = settings[f'num_{split}']
        entries, annotations = [], []
        images = digit_images(split, **{k: settings[k] for k in ('sizes', 'digit_sizes', 'seed')})
        for i, (image, labels, record, instances) in zip(range(total), images, strict=False):
            name = f'{split}_{i:05d}'
            ok, jpg = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            assert ok
            for folder in folders[:2]:
                (folder / f'{name}.jpg').write_bytes(jpg.tobytes())
            cv2.imwrite(str(folders[2] / f'{name}.png'), labels)
            entries.append(dict(id=i + 1, file_name=f'{name}.jpg', height=image.shape[0], width=image.shape[1],
                               **record))
            for instance in instances:
                annotations.append(dict(id=len(annotations) + 1, image_id=i + 1, iscrowd=0, **instance))
            if (i + 1) % 100 == 0 or i + 1 == total:
                log(f'{split}: {i + 1} of {total} images')
        coco = dict(info=dict(description='handwritten digits on photographs', **settings), licenses=[], images=entries,
                    annotations=annotations,
                    categories=[dict(id=k + 1, name=n, supercategory='digit') for k, n in enumerate(CLASSES)])
        path = f'annotations/instances_{split}.json'
        data = json.dumps(coco).encode()
        (root / path).write_bytes(data)
        hashes[path] = hashlib.sha256(data).hexdigest()
        counts.update({str(folder.relative_to(root)): total for folder in folders})
    manifest = dict(settings=settings, counts=counts, sha256=hashes)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')
    return manifest


def digit_images(split: str, sizes: tuple[int, int], digit_sizes: tuple[int, int],
                 seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, dict, list[dict]]]:
    """Draw images without end; image i depends on the settings and i alone.

    Args:
        split: 'train' or 'val', which share no sample and no pixel of a photograph.
        sizes: Shortest and longest side of an image, in pixels.
        digit_sizes: Shortest and longest side of a digit, in pixels.
        seed: Seed of all random choices.

    Yields:
        The image (H, W, 3), RGB, uint8; its labels (H, W), uint8, 1 for the background and 2-11 for the digits 0-9; a
        dict of the photograph and the crop behind it; the digits, each a dict with ``category_id`` (1-10), ``bbox``,
        ``area``, ``sample`` and ``segmentation`` in COCO's form (compressed RLE).
    """
    from sklearn.datasets import load_digits, load_sample_images
    digits = load_digits()
    photos = dict(zip(('china', 'flower'), load_sample_images().images, strict=True))
    samples = _Samples(digits.target, split, seed)
    for i in itertools.count():
        # one generator an image: image i is the same whatever the number of images
        rng = np.random.default_rng([seed, _SPLITS.index(split), i])
        yield _image(rng, photos, digits, samples, split, sizes, digit_sizes)


def split_samples(targets: np.ndarray, split: str, seed: int) -> np.ndarray:
    """Choose the digit samples of a split, stratified by class.

    Args:
        targets: The class of each sample.
        split: 'train' or 'val', which share no sample.
        seed: Seed of the choice.

    Returns:
        Indices of the samples.
    """
    rng = np.random.default_rng([seed, 100])
    chosen = []
    for digit in range(10):
        indices = rng.permutation(np.flatnonzero(targets == digit))
        cut = round(len(indices) * _VAL_SHARE)
        chosen.append(indices[:cut] if split == 'val' else indices[cut:])
    return np.concatenate(chosen)


class _Samples:
    """An endless sequence of the digit samples of one split: a new permutation of all of them after each pass."""

    def __init__(self, targets: np.ndarray, split: str, seed: int) -> None:
        self.indices = split_samples(targets, split, seed)
        self.rng = np.random.default_rng([seed, 101, _SPLITS.index(split)])
        self.left: list[int] = []

    def next_index(self) -> int:
        if not self.left:
            self.left = list(self.rng.permutation(self.indices))
        return int(self.left.pop())


def _background(rng: np.random.Generator, photos: dict[str, np.ndarray], split: str, height: int,
                width: int) -> tuple[np.ndarray, dict]:
    """Crop a photograph, and mirror it at random and dim it; returns the photograph's name and the crop as well."""
    import cv2
    name = list(photos)[rng.integers(len(photos))]
    photo = photos[name]
    rows, columns = photo.shape[:2]
    cut = _VAL_WIDTH if _VAL_SIDE[name] == 'left' else columns - _VAL_WIDTH
    left, right = (0, cut) if (split == 'val') == (_VAL_SIDE[name] == 'left') else (cut, columns)
    scale = min(rng.uniform(0.5, 1.0), (right - left) / width, rows / height)
    h, w = int(height * scale), int(width * scale)
    y, x = int(rng.integers(0, rows - h + 1)), int(rng.integers(left, right - w + 1))
    crop = cv2.resize(photo[y:y + h, x:x + w], (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    # Dimmed, so that light ink stands out from the brightest sky.
    crop = crop * rng.uniform(0.3, 0.5)
    return np.clip(crop, 0, 255).astype(np.float32), dict(photo=name, crop=[x, y, w, h])


def draw_ink(rng: np.random.Generator, sample: np.ndarray, size: int) -> np.ndarray:
    """Draw an 8x8 sample as strokes of ink, rotated and sheared slightly at random.

    Args:
        rng: Source of the random choices.
        sample: Values (8, 8) between 0 and 16.
        size: Side of the result, in pixels.

    Returns:
        Coverage (size, size) between 0 and 1, float32.
    """
    import cv2
    scale = size / 8
    angle, shear = np.deg2rad(rng.uniform(-6, 6)), rng.uniform(-0.08, 0.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * 0.92 * turn @ np.array([[1, shear], [0, 1]])
    offset = np.array([size / 2 - 0.5] * 2) - matrix @ np.array([3.5, 3.5])
    ink = cv2.warpAffine((sample / 16).astype(np.float32), np.column_stack([matrix, offset]), (size, size),
                         flags=cv2.INTER_CUBIC)
    level = rng.uniform(0.36, 0.46)  # the lower it is, the broader are the strokes
    t = np.clip((ink - level) / 0.16 + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _image(rng: np.random.Generator, photos: dict[str, np.ndarray], digits: 'Bunch', samples: _Samples, split: str,
           sizes: tuple[int, int], digit_sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, dict, list[dict]]:
    """Draw one image; see :func:`digit_images`."""
    from pycocotools import mask as rle
    low, high = sizes
    height, width = (int(low + 8 * rng.integers(0, (high - low) // 8 + 1)) for _ in range(2))
    image, record = _background(rng, photos, split, height, width)
    labels = np.ones((height, width), np.uint8)
    instances, taken = [], np.zeros((height, width), bool)
    for _ in range(int(rng.integers(2, 6))):
        index = samples.next_index()
        for _attempt in range(100):
            size = int(rng.integers(digit_sizes[0], digit_sizes[1] + 1))
            y, x = int(rng.integers(0, height - size + 1)), int(rng.integers(0, width - size + 1))
            if not taken[max(y - _GAP, 0):y + size + _GAP, max(x - _GAP, 0):x + size + _GAP].any():
                break
        else:
            break  # no room left
        window = np.s_[y:y + size, x:x + size]
        taken[window] = True
        ink = draw_ink(rng, digits.images[index], size)
        opacity = rng.uniform(0.85, 1.0)
        alpha = (ink * opacity)[..., None]
        ink_colour = rng.uniform(215, 255, 3)  # light, a little tinted
        image[window] = image[window] * (1 - alpha) + ink_colour * alpha
        visible = ink > 0.5
        digit = int(digits.target[index])
        labels[window][visible] = digit + 2
        mask = np.zeros((height, width), np.uint8, order='F')
        mask[window] = visible
        code = rle.encode(mask)
        instances.append(dict(category_id=digit + 1, bbox=[float(v) for v in rle.toBbox(code)],
                              area=int(rle.area(code)), sample=index,
                              segmentation=dict(size=[height, width], counts=code['counts'].decode())))
    image = image + rng.normal(0, rng.uniform(0, 5), image.shape)
    return np.clip(image.round(), 0, 255).astype(np.uint8), labels, record, instances
