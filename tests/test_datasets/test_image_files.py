"""Image files and folders of the user's own."""
import cv2
import numpy as np
import pytest

from plugconv_mm.datasets.image_files import find_images, read_image
from plugconv_mm.errors import DataError


def test_images_of_a_folder_and_the_folders_in_it(tmp_path):
    (tmp_path / 'deep').mkdir()
    for name in ('b.JPG', 'a.png', 'deep/c.webp', 'notes.txt'):
        (tmp_path / name).write_bytes(b'')
    assert find_images(tmp_path) == [tmp_path / name for name in ('a.png', 'b.JPG', 'deep/c.webp')]
    assert find_images(str(tmp_path / 'notes.txt')) == [tmp_path / 'notes.txt']  # named by the user, whatever it is


def test_colours_are_rgb(tmp_path):
    image = np.zeros((3, 5, 3), np.uint8)
    image[..., 2] = 200  # red, as OpenCV has it
    cv2.imwrite(str(tmp_path / 'ä.png'), image)
    found = read_image(tmp_path / 'ä.png')
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, image[..., ::-1])


@pytest.mark.parametrize('content', [b'', b'no image'])
def test_broken_files(tmp_path, content):
    (tmp_path / 'x.png').write_bytes(content)
    with pytest.raises(DataError, match='x.png cannot be read as an image'):
        read_image(tmp_path / 'x.png')


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match='there is no image or folder of images'):
        find_images(tmp_path / 'none')
    with pytest.raises(DataError, match='holds no image: none of its files ends in .bmp'):
        find_images(tmp_path)
