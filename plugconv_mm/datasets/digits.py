"""Handwritten digits on photographs: a small detection and segmentation data set that needs no download.

The digits are scikit-learn's ``load_digits`` (1797 samples of 8x8, the UCI optical recognition set), the backgrounds
are crops of scikit-learn's two sample photographs. The same images are laid out twice, once like COCO and once like
ADE20K, so that the stock dataset classes of mmdet and mmseg read them::

    data/digits/
        digits.json                               what was built, and with which settings
        annotations/instances_{train,val}.json    COCO: 10 classes, compressed RLE masks
        train/*.jpg  val/*.jpg
        images/{training,validation}/*.jpg        ADE20K: the same images
        annotations/{training,validation}/*.png   0 unlabelled (never used), 1 background, 2-11 the digits 0-9

No digit sample and no pixel of a photograph is in both splits. The same seed gives the same bytes.
"""
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np

from plugconv_mm.atomic_write import atomic_folder
from plugconv_mm.errors import DataError

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
MANIFEST = 'digits.json'
_VERSION = 2  # of the images: a change in how they are drawn raises it
_SPLITS = ('train', 'val')
_ADE_NAMES = {'train': 'training', 'val': 'validation'}
_ENTRIES = {MANIFEST, 'annotations', 'images', *_SPLITS}
_VAL_WIDTH = 192  # columns of each photograph that are kept for validation,
_VAL_SIDE = {'china': 'right', 'flower': 'left'}  # at this side
_VAL_SHARE = 0.2  # of each digit's samples
_GAP = 2  # pixels between the boxes of two digits


def check_digits(root, command='python tools/dataset_converters/digits.py --out {data_root}'):
    """Raise :class:`~plugconv_mm.errors.DataError` unless ``root`` holds a complete set of digits.

    Args:
        root (str | Path): The folder.
        command (str): What builds it, named in the message. ``{data_root}`` stands for ``root``.

    Returns:
        dict: The manifest, with the settings the set was built with.
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


def build_digits(out, num_train=400, num_val=80, sizes=(160, 192), digit_sizes=(24, 64), seed=0, force=False,
                 log=print):
    """Build the data set into ``out``; nothing is left behind if it does not get to the end.

    Args:
        out (str | Path): The folder. A complete set with the same settings is left as it is; a half-built one is
            replaced.
        num_train (int): Training images.
        num_val (int): Validation images.
        sizes (tuple[int, int]): Shortest and longest side of an image, in pixels; each side is drawn by itself, in
            steps of 8.
        digit_sizes (tuple[int, int]): Side that the 8x8 samples are scaled to, in pixels.
        seed (int): Decides everything that is drawn by chance.
        force (bool): Replace a complete set that was built with other settings.
        log (callable): Takes one line of progress.

    Returns:
        dict: The manifest.

    Raises:
        ValueError: A setting makes no sense.
        DataError: ``out`` holds something that this tool did not write, or a set with other settings.
    """
    out = Path(out)
    if num_train < 1 or num_val < 1:
        raise ValueError(f'num_train and num_val must be at least 1, got {num_train} and {num_val}')
    if not 8 <= digit_sizes[0] <= digit_sizes[1]:
        raise ValueError(f'digit_sizes must be two numbers, 8 <= smallest <= largest, got {tuple(digit_sizes)}')
    if not 2 * digit_sizes[1] <= sizes[0] <= sizes[1]:
        raise ValueError(f'sizes must be two numbers, smallest <= largest, and images at least twice as large as the '
                         f'largest digit ({digit_sizes[1]} pixels), got {tuple(sizes)}')
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


def _write(root, settings, log):
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


def digit_images(split, sizes, digit_sizes, seed):
    """Images without end; the first ones are the same however many are taken.

    Args:
        split (str): 'train' or 'val', which share no sample and no pixel of a photograph.
        sizes (tuple[int, int]): Shortest and longest side of an image, in pixels.
        digit_sizes (tuple[int, int]): Smallest and largest side of a digit, in pixels.
        seed (int): Decides everything that is drawn by chance.

    Yields:
        tuple: The image (H, W, 3, RGB, uint8); its labels (H, W, uint8: 1 background, 2-11 the digits 0-9); a dict
        of where the background was taken from; the digits, each a dict with ``category_id`` (1-10), ``bbox``,
        ``area``, ``sample`` and ``segmentation`` as COCO has them (compressed RLE).
    """
    from sklearn.datasets import load_digits, load_sample_images
    digits = load_digits()
    photos = dict(zip(('china', 'flower'), load_sample_images().images, strict=True))
    samples = _Samples(digits.target, split, seed)
    for i in itertools.count():
        # one generator an image: image i is the same whatever the number of images
        rng = np.random.default_rng([seed, _SPLITS.index(split), i])
        yield _image(rng, photos, digits, samples, split, sizes, digit_sizes)


def split_samples(targets, split, seed):
    """Indices of the digit samples of one split, 'train' or 'val', of the classes ``targets``."""
    rng = np.random.default_rng([seed, 100])
    chosen = []
    for digit in range(10):
        indices = rng.permutation(np.flatnonzero(targets == digit))
        cut = round(len(indices) * _VAL_SHARE)
        chosen.append(indices[:cut] if split == 'val' else indices[cut:])
    return np.concatenate(chosen)


class _Samples:
    """Deals the digit samples of one split: every one once, in a drawn order, before any comes again."""

    def __init__(self, targets, split, seed):
        self.indices = split_samples(targets, split, seed)
        self.rng = np.random.default_rng([seed, 101, _SPLITS.index(split)])
        self.left = []

    def deal(self):
        if not self.left:
            self.left = list(self.rng.permutation(self.indices))
        return int(self.left.pop())


def _background(rng, photos, split, height, width):
    """A crop of a photograph, mirrored by chance and dimmed, and where it was taken from."""
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
    # Dimmed, as a slide with writing on it is: a light ink stands out from the brightest sky.
    crop = crop * rng.uniform(0.3, 0.5)
    return np.clip(crop, 0, 255).astype(np.float32), dict(photo=name, crop=[x, y, w, h])


def draw_ink(rng, sample, size):
    """One 8x8 sample as a stroke of ink: coverage in [0, 1], ``size`` pixels a side, turned and sheared a little."""
    import cv2
    scale = size / 8
    angle, shear = np.deg2rad(rng.uniform(-6, 6)), rng.uniform(-0.08, 0.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * 0.92 * turn @ np.array([[1, shear], [0, 1]])
    offset = np.array([size / 2 - 0.5] * 2) - matrix @ np.array([3.5, 3.5])
    ink = cv2.warpAffine((sample / 16).astype(np.float32), np.column_stack([matrix, offset]), (size, size),
                         flags=cv2.INTER_CUBIC)
    level = rng.uniform(0.36, 0.46)  # lower: a broader pen
    t = np.clip((ink - level) / 0.16 + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _image(rng, photos, digits, samples, split, sizes, digit_sizes):
    from pycocotools import mask as rle
    low, high = sizes
    height, width = (int(low + 8 * rng.integers(0, (high - low) // 8 + 1)) for _ in range(2))
    image, record = _background(rng, photos, split, height, width)
    labels = np.ones((height, width), np.uint8)
    instances, taken = [], np.zeros((height, width), bool)
    for _ in range(int(rng.integers(2, 6))):
        index = samples.deal()
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
