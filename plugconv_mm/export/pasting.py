"""Masks of boxes, put into the image."""
import torch
from torch import Tensor


def paste(masks: Tensor, boxes: Tensor, shape: tuple[int, int], threshold: float) -> Tensor:
    """Put the masks of boxes where their boxes are, with linear interpolation, as mmdet does.

    Interpolation by rows and then by columns is two products of matrices, which all runtimes have, and which take no
    memory for places of samples.

    Args:
        masks: Probabilities (B, K, h, w), each of a box.
        boxes: (B, K, 4) in pixels.
        shape: H and W of the image.
        threshold: The probability from which a pixel belongs to the object.

    Returns:
        Masks (B, K, H, W) of bool.
    """
    rows = _weights(boxes[..., 1], boxes[..., 3], shape[0], masks.shape[2])
    columns = _weights(boxes[..., 0], boxes[..., 2], shape[1], masks.shape[3])
    return rows @ masks @ columns.transpose(2, 3) >= threshold


def _weights(start: Tensor, end: Tensor, pixels: int, cells: int) -> Tensor:
    """Weights (B, K, pixels, cells) of cells between ``start`` and ``end`` at the centres of pixels."""
    side = (end - start).clamp(min=1e-6)[..., None]
    centres = torch.arange(pixels, device=start.device, dtype=start.dtype) + 0.5
    places = (centres - start[..., None]) / side * cells - 0.5
    cell = torch.arange(cells, device=start.device, dtype=start.dtype)
    return (1 - (places[..., None] - cell).abs()).clamp(min=0)
