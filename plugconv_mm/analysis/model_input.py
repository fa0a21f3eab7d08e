"""Images as inputs of models."""
import numpy as np
import torch
from torch import Tensor

# ImageNet's, in the order R, G, B.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def as_input(image: np.ndarray, side: int, preprocessor: dict | None = None) -> Tensor:
    """Stretch an image to a square and normalise it.

    Args:
        image: (H, W, 3), RGB, uint8.
        side: Height and width, in pixels.
        preprocessor: The config's ``data_preprocessor``: its ``mean``, ``std`` and order of channels; ImageNet's, in
            the order R, G, B, where it has none.

    Returns:
        A tensor (1, 3, side, side), float32.
    """
    import cv2
    preprocessor = preprocessor or {}
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    is_rgb = preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb') or 'mean' not in preprocessor
    image = image if is_rgb else image[..., ::-1]
    image = (image - np.float32(preprocessor.get('mean') or MEAN)) / np.float32(preprocessor.get('std') or STD)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
