"""Pictures of the user's own, in no data set."""
from pathlib import Path

import cv2
import numpy as np

from plugconv_mm.datasets.folders import DataError

# Names of pictures end in one of these.
_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def find_pictures(path: str | Path) -> list[Path]:
    """The pictures in a folder and the folders in it, sorted, or the one picture that the path is.

    Raises:
        DataError: There is no such file or folder, or no picture in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f'there is no picture or folder of pictures {path}')
    found = sorted(file for file in path.rglob('*') if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not found:
        raise DataError(f'the folder {path} holds no picture: none of its files ends in {", ".join(_SUFFIXES)}')
    return found


def read_picture(path: str | Path) -> np.ndarray:
    """A picture as (H, W, 3), RGB, uint8.

    Raises:
        DataError: The file is not a picture, or is broken.
    """
    data = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise DataError(f'{path} cannot be read as a picture: it is empty, broken, or of another format')
    return np.ascontiguousarray(picture[..., ::-1])
