"""Comparison of the detections of two runtimes."""
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from plugconv_mm.errors import ExportError

SCORE = 0.05  # detections below may differ: they are many, and the next rounding changes their order
_IOU, _SCORES, _MASKS, _SIDES, _PIXELS = 0.99, 1e-3, 1e-2, 1e-2, 4


def differing_detection(expected: Sequence[Tensor], got: Sequence[Tensor], runtime: str = 'ONNX Runtime') -> str:
    """Find a detection of one runtime that the other does not have.

    Each has to have a box of its label in the other, with an IoU of 0.99, a score within 1e-3 and a mask within 1e-2;
    of masks of pixels, all but 4 and a hundredth of the pixels have to agree. Where all K places are taken, nothing is
    asked of boxes as good as the last one: which of them is left out is chance.

    Args:
        expected: Boxes with scores (B, K, 5), labels (B, K), and masks (B, K, h, w) where there are any.
        got: The same of the other.
        runtime: The other's name.

    Returns:
        What is missing, as a phrase; nothing if all are there.
    """
    for image in range(len(expected[0])):
        sides = [[part[image][outs[0][image, :, 4] > SCORE] for part in outs] for outs in (expected, got)]
        for (own, other), where in ((sides, runtime), (sides[::-1], 'PyTorch')):
            full = len(other[0]) == expected[0].shape[1]
            for number in range(len(own[0])):
                box, label = own[0][number], own[1][number]
                if full and box[4] <= other[0][-1, 4] + _SCORES:  # as good as the last that there is a place for
                    continue
                fits = (other[1] == label) & ((other[0][:, 4] - box[4]).abs() <= _SCORES) & (
                    (box_iou(box[None, :4], other[0][:, :4])[0] >= _IOU)
                    | ((other[0] - box)[:, :4].abs().amax(1) <= _SIDES))  # boxes without an area
                if len(own) > 2:
                    fits &= _masks_fit(own[2][number], other[2])
                if not fits.any():
                    place = ', '.join(f'{side:.1f}' for side in box[:4].tolist())
                    return f'a box ({place}) of class {int(label)} with score {box[4]:.3f} that {where} does not find'
    return ''


def _masks_fit(own: Tensor, others: Tensor) -> Tensor:
    """Whether each of other masks (K, h, w) is as a mask (h, w): of probabilities, or of pixels (bool)."""
    if own.dtype == torch.bool:
        # Probabilities near the threshold fall to either side of it.
        return (others ^ own).sum((1, 2)) <= _PIXELS + _MASKS * own.sum()
    return (others - own).abs().flatten(1).amax(1) <= _MASKS


def read_images(paths: Sequence[Path], preprocessor: nn.Module, shape: tuple[int, int], uint8: bool = False) -> Tensor:
    """Read image files as a file is given them, resized to one size.

    Returns:
        Pixels (N, H, W, 3), BGR, of uint8, or normalised images (N, C, H, W).

    Raises:
        ExportError: A file that is no image.
    """
    images = [cv2.imread(str(path)) for path in paths]
    if unread := [str(path) for path, image in zip(paths, images, strict=True) if image is None]:
        raise ExportError(f'{unread[0]} is no image that OpenCV reads')
    pixels = torch.stack([torch.from_numpy(cv2.resize(image, shape[::-1])) for image in images])
    return pixels if uint8 else preprocessor(dict(inputs=list(pixels.permute(0, 3, 1, 2)), data_samples=None))['inputs']
