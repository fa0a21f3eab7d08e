"""The data set of digits with a mark far away."""
import cv2
import numpy as np
import pytest

from plugconv_mm.datasets import build_distant_cue
from plugconv_mm.datasets.distant_cue import DISC_SIDE, DISTANCE, distant_cue_images
from plugconv_mm.errors import DataError


def test_layout_and_rebuilding(tmp_path):
    out = tmp_path / 'distant_cue'
    build_distant_cue(out, 5, 2)
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob('*.png'))
    assert files == sorted(f'{kind}/{split}/{i:05d}.png' for kind in ('images', 'cue', 'digit')
                           for split, count in (('training', 5), ('validation', 2)) for i in range(count))
    first = {name: (out / name).read_bytes() for name in files}
    (out / 'images/training/00000.png').write_bytes(b'')
    build_distant_cue(out, 5, 2)  # there already
    assert (out / 'images/training/00000.png').read_bytes() == b''
    build_distant_cue(out, 4, 2)
    build_distant_cue(out, 5, 2)
    assert {name: (out / name).read_bytes() for name in files} == first
    image = cv2.imread(str(out / 'images/validation/00001.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, list(distant_cue_images('val', 2))[1][0])


def test_the_class_is_told_far_away():
    colours = set()
    for image, cue, digit in distant_cue_images('train', 40):
        ink = cue > 0
        np.testing.assert_array_equal(ink, digit > 0)
        assert ink.any() and len(np.unique(cue)) == len(np.unique(digit)) == 2
        blue, green, red = image.astype(int).transpose(2, 0, 1)
        discs = {1: (red - blue > 80) & (green - blue > 80), 2: (blue - green > 60) & (blue - red > 60)}
        disc = discs.pop(cue.max())
        assert 0.7 < disc.sum() / (np.pi / 4 * DISC_SIDE**2) < 1.1
        assert not any(other.any() for other in discs.values())
        middles = [np.array(np.nonzero(mask)).mean(1) for mask in (disc, ink)]
        assert np.hypot(*(middles[0] - middles[1])) > DISTANCE - 10  # the ink of a one or a seven is off its middle
        assert abs(image[ink].astype(int) - image[ink][:, :1]).max() <= 1  # the digit itself is grey
        colours.add(cue.max())
    assert colours == {1, 2}


def test_no_sample_is_in_both_splits():
    digits = [{digit.max() for _, _, digit in distant_cue_images(split, 100)} for split in ('train', 'val')]
    assert digits == [set(range(1, 11))] * 2
    train, val = (list(distant_cue_images(split, 3)) for split in ('train', 'val'))
    assert not any(np.array_equal(a, b) for (a, *_), (b, *_) in zip(train, val, strict=True))


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match='at least 1, got 0 and 5'):
        build_distant_cue(tmp_path / 'none', 0, 5)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/notes.txt').write_text('keep me')
    with pytest.raises(DataError, match='holds something else'):
        build_distant_cue(tmp_path / 'mine', 1, 1)
    assert (tmp_path / 'mine/notes.txt').read_text() == 'keep me'
