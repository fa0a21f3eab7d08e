"""Digits with a mark far away: images that cannot be read through a small window.

An image of 128x128 pixels holds one digit of scikit-learn's ``load_digits`` and one disc, light yellow or dark blue,
whose centres are at least 72 pixels apart. It is labelled twice. In ``cue`` the pixels of the digit have the colour of
the disc as their class, whatever the digit is: they can be told from the background right here, but their class only
over there. In ``digit`` they have the digit, and the disc does not matter. For mmseg's ``BaseSegDataset``::

    data/distant_cue/
        distant_cue.json                        with which settings it was built
        images/{training,validation}/*.png
        cue/{training,validation}/*.png     0 background, 1 digit with a yellow disc, 2 digit with a blue disc
        digit/{training,validation}/*.png   0 background, 1-10 the digits 0-9

No digit sample is in both splits. The same seed gives the same bytes.
"""
import json
from pathlib import Path

import numpy as np

from plugconv_mm.atomic_write import atomic_folder
from plugconv_mm.datasets.digits import draw_ink, split_samples
from plugconv_mm.errors import DataError

SIDE = 128  # of an image, in pixels
DISTANCE = 72  # from centre to centre, at least
DIGIT_SIDES = (26, 38)
DISC_SIDE = 21
MANIFEST = 'distant_cue.json'
_FOLDERS = dict(train='training', val='validation')


def build_distant_cue(out, num_train=800, num_val=160, seed=0):
    """Build the data set into ``out``, in a few seconds; nothing is left behind if it does not get to the end.

    Args:
        out (str | Path): The folder. A set with the same settings is left as it is, one with others is replaced.
        num_train (int): Training images.
        num_val (int): Validation images.
        seed (int): Decides everything that is drawn by chance.

    Raises:
        ValueError: A number of images is below 1.
        DataError: ``out`` holds something that this function did not write.
    """
    import cv2
    if num_train < 1 or num_val < 1:
        raise ValueError(f'num_train and num_val must be at least 1, got {num_train} and {num_val}')
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


def distant_cue_images(split, count, seed=0):
    """Draw images.

    Args:
        split (str): 'train' or 'val', which share no sample of a digit.
        count (int): Number of images.
        seed (int): Decides everything that is drawn by chance.

    Yields:
        tuple: The image (128, 128, 3) in BGR order and its labels by cue and by digit, (128, 128) each; uint8.
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


def _clouds(rng):
    """A dim background (SIDE, SIDE)."""
    import cv2
    clouds = cv2.resize(rng.uniform(20, 90, (8, 8)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return clouds + rng.normal(0, 8, (SIDE, SIDE)).astype(np.float32)


def _disc():
    """Coverage in [0, 1] of a disc (DISC_SIDE, DISC_SIDE)."""
    y, x = np.mgrid[:DISC_SIDE, :DISC_SIDE] - DISC_SIDE // 2
    return np.clip(DISC_SIDE / 2 - np.hypot(y, x), 0, 1).astype(np.float32)
