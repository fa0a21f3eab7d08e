"""Image files and folders of the user's own, outside of data sets."""
from pathlib import Path

import cv2
import numpy as np

from plugconv_mm.errors import DataError

# Suffixes of image files.
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def find_images(path: str | Path) -> list[Path]:
    """Find the images in a folder and the folders in it.

    Returns:
        Their paths, sorted; the path itself if it is a file.

    Raises:
        DataError: There is no such file or folder, or no image in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f'there is no image or folder of images {path}')
    found = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise DataError(f'the folder {path} holds no image: none of its files ends in {", ".join(SUFFIXES)}')
    return found


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as (H, W, 3), RGB, uint8.

    Raises:
        DataError: The file is not an image, or is broken.
    """
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(f'{path} cannot be read as an image: it is empty, broken, or of another format')
    return np.ascontiguousarray(image[..., ::-1])
