"""Heat maps of receptive fields, and maps over images."""
import numpy as np
import pytest

pytest.importorskip('matplotlib')

import cv2  # noqa: E402

from plugconv_mm.visualization import plot_contributions, save_overlays  # noqa: E402


def coloured(page, colour, tolerance=40):
    """How many pixels of a page have about this colour, in BGR order."""
    return int((np.abs(page.astype(int) - colour).max(2) < tolerance).sum())


def test_contributions_are_brightest_where_they_are_greatest(tmp_path):
    field = np.zeros((31, 31))
    field[10:21, 10:21] = 1
    plot_contributions(tmp_path / 'one.png', {'net': (field, {0.5: 11})})
    page = cv2.imread(str(tmp_path / 'one.png'))
    wide = np.ones((31, 31))
    plot_contributions(tmp_path / 'wide.png', {'net': (wide, {0.5: 11})})
    brightest = (164, 255, 252)  # the upper end of the scale of colours
    assert coloured(cv2.imread(str(tmp_path / 'wide.png')), brightest) > 4 * coloured(page, brightest) > 0
    assert coloured(page, (255, 191, 0)) > 0  # the square, deep sky blue


def test_panels_wrap_into_rows(tmp_path):
    field = np.ones((8, 8))
    shapes = []
    for number in (2, 5):
        plot_contributions(tmp_path / 'x.png', {f'net {i}': (field, {}) for i in range(number)}, columns=4)
        shapes.append(cv2.imread(str(tmp_path / 'x.png')).shape)
    assert shapes[1][0] > 1.5 * shapes[0][0]  # five panels take two rows


def test_maps_and_boxes_over_images(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    map_ = np.zeros((40, 60))
    map_[:20] = 1
    panels = [dict(title='plain', image=image), dict(title='map', image=image, map=map_, box=(10, 10, 30, 30))]
    save_overlays(tmp_path / 'out/x.png', [panels])
    page = cv2.imread(str(tmp_path / 'out/x.png')).astype(int)
    left, right = np.split(page[60:-20], [page.shape[1] // 2], axis=1)
    red, blue = ((side[..., i] > side[..., 2 - i] + 40).sum() for side, i in ((right, 2), (right, 0)))
    assert red > 1000 and blue > 1000  # high above, low below
    assert not ((left[..., 2] > left[..., 0] + 40) | (left[..., 0] > left[..., 2] + 40)).any()


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match='no images'):
        save_overlays(tmp_path / 'x.png', [])
