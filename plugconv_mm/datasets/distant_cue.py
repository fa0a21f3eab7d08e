"""Digits with a distant cue: images whose labels cannot be told from a small window.

An image of 128x128 pixels holds one digit of scikit-learn's ``load_digits`` and one disc, light yellow or dark blue,
whose centres are at least 72 pixels apart. It is labelled twice. In ``cue`` the class of the digit's pixels is the
colour of the disc, whatever the digit is: they differ from the background locally, but their class only shows at the
disc. In ``digit`` their class is the digit, and the disc does not matter. For mmseg's ``BaseSegDataset``::

    data/distant_cue/
        distant_cue.json                    the settings of the set
        images/{training,validation}/*.png
        cue/{training,validation}/*.png     0 background, 1 digit with a yellow disc, 2 digit with a blue disc
        digit/{training,validation}/*.png   0 background, 1-10 the digits 0-9

No digit sample is in both splits. The same seed gives the same bytes.
"""
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from plugconv_mm.atomic_write import atomic_folder
from plugconv_mm.datasets.digits import draw_ink, split_samples
from plugconv_mm.errors import ConfigError, DataError

SIDE = 128  # of an image, in pixels
DISTANCE = 72  # the least distance between the centres, in pixels
DIGIT_SIDES = (26, 38)
DISC_SIDE = 21
MANIFEST = 'distant_cue.json'
_FOLDERS = dict(train='training', val='validation')


def build_distant_cue(out: str | os.PathLike, num_train: int = 800, num_val: int = 160, seed: int = 0) -> None:
    """Build the data set into a folder, in a few seconds; the folder is only written if the build is completed.

    Args:
        out: The folder. A set with the same settings is left as it is, one with others is replaced.
        num_train: Number of training images.
        num_val: Number of validation images.
        seed: Seed of all random choices.

    Raises:
        ConfigError: A number of images is below 1.
        DataError: ``out`` holds files that this function did not write.
    """
    import cv2
    if num_train < 1 or num_val < 1:
        raise ConfigError(f'num_train and num_val must be at least 1, got {num_train} and {num_val}')
    out, settings = Path(out), dict(num_train=num_train, num_val=num_val, seed=seed)
    if out.exists():
        try:
            found = json.loads((out / MANIFEST).read_text())
        except (OSError, ValueError):
            raise DataError(f'{out} exists and holds something else; it stays as it is. Choose another '
                            'folder.') from None
        if found == settings:
            return
    with atomic_folder(out) as root:
        for split, folder in _FOLDERS.items():
            for kind in ('images', 'cue', 'digit'):
                (root / kind / folder).mkdir(parents=True)
            for i, images in enumerate(distant_cue_images(split, settings[f'num_{split}'], seed)):
                for kind, image in zip(('images', 'cue', 'digit'), images, strict=True):
                    cv2.imwrite(str(root / kind / folder / f'{i:05d}.png'), image)
        (root / MANIFEST).write_text(json.dumps(settings) + '\n')


def distant_cue_images(split: str, count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draw images; image i depends on the seed and i alone.

    Args:
        split: 'train' or 'val', which share no sample of a digit.
        count: Number of images.
        seed: Seed of all random choices.

    Yields:
        The image (128, 128, 3) in BGR order, its labels by cue (128, 128), and its labels by digit (128, 128); uint8.
    """
    from sklearn.datasets import load_digits
    digits = load_digits()
    samples = split_samples(digits.target, split, seed)
    for i in range(count):
        # one generator an image: image i is the same whatever the number of images
        rng = np.random.default_rng([seed, list(_FOLDERS).index(split), i])
        index, blue = samples[rng.integers(len(samples))], int(rng.integers(2))
        side = int(rng.integers(DIGIT_SIDES[0], DIGIT_SIDES[1] + 1))
        while True:
            here, there = (rng.integers(0, SIDE - size + 1, 2) for size in (side, DISC_SIDE))
            if np.hypot(*(here + side / 2 - there - DISC_SIDE / 2)) >= DISTANCE:
                break
        image = np.repeat(_clouds(rng)[..., None], 3, 2)
        ink = draw_ink(rng, digits.images[index], side)
        colour = np.multiply((0.6, 0, 0) if blue else (0.2, 1, 1), rng.uniform(200, 250))
        for (y, x), alpha, shade in ((here, ink, rng.uniform(190, 230)), (there, _disc(), colour)):
            window = image[y:y + len(alpha), x:x + len(alpha)]
            window += (shade - window) * alpha[..., None]
        labels = np.zeros((2, SIDE, SIDE), np.uint8)
        y, x = here
        labels[:, y:y + side, x:x + side] = (ink > 0.5) * np.array([1 + blue, 1 + digits.target[index]])[:, None, None]
        yield np.clip(image.round(), 0, 255).astype(np.uint8), *labels


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """A dark, cloudy background (SIDE, SIDE)."""
    import cv2
    clouds = cv2.resize(rng.uniform(20, 90, (8, 8)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return clouds + rng.normal(0, 8, (SIDE, SIDE)).astype(np.float32)


def _disc() -> np.ndarray:
    """Coverage in [0, 1] of a disc (DISC_SIDE, DISC_SIDE)."""
    y, x = np.mgrid[:DISC_SIDE, :DISC_SIDE] - DISC_SIDE // 2
    return np.clip(DISC_SIDE / 2 - np.hypot(y, x), 0, 1).astype(np.float32)
