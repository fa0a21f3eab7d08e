"""Pictures of a folder, as models take them."""
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plugconv_mm.datasets import DataError
from plugconv_mm.datasets.folders import SUFFIXES

# Of ImageNet, in the order R, G, B.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def find_pictures(path: str | Path) -> list[Path]:
    """The pictures of a folder by name, or the one picture that the path is.

    Raises:
        DataError: There is no such file or folder, or no picture in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f'there is no picture or folder of pictures {path}')
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f'the folder {path} holds no picture: none of its files ends in {", ".join(SUFFIXES)}')
    return found


def read_picture(path: str | Path) -> np.ndarray:
    """A picture as (H, W, 3), RGB, uint8.

    Raises:
        DataError: The file is not a picture, or is broken.
    """
    import cv2
    data = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise DataError(f'{path} cannot be read as a picture: it is empty, broken, or of another format')
    return picture[..., ::-1]


def as_input(picture: np.ndarray, side: int, preprocessor: dict | None = None) -> Tensor:
    """A picture stretched to a square and normalised.

    Args:
        picture: (H, W, 3), RGB, uint8.
        side: Height and width, in pixels.
        preprocessor: The config's ``data_preprocessor``: its ``mean``, ``std`` and order of channels; ImageNet's, in
            the order R, G, B, where it has none.

    Returns:
        (1, 3, side, side), float32.
    """
    import cv2
    preprocessor = preprocessor or {}
    picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    is_rgb = preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb') or 'mean' not in preprocessor
    picture = picture if is_rgb else picture[..., ::-1]
    picture = (picture - np.float32(preprocessor.get('mean') or MEAN)) / np.float32(preprocessor.get('std') or STD)
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
