"""Effective receptive fields.

- Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
  https://arxiv.org/abs/1701.04128
- Ding et al., "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs" (RepLKNet), section on
  effective receptive fields, https://arxiv.org/abs/2203.06717: the scores and the area ratios.
"""
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

SHARES = (0.2, 0.3, 0.5, 0.99)  # those of the published tables


def contributions(features: Callable[[Tensor], Tensor], images: Iterable[Tensor]) -> np.ndarray:
    """Compute the contribution of each pixel to the centre of a feature map.

    For each image the central units of all channels, clipped below at zero, are summed; the gradient of the sum with
    respect to the image, clipped likewise, is averaged over channels and images. The units are clipped, as in RepLKNet,
    because those of a map that ends in a layer norm sum to a constant, whatever the image.

    One image is in memory at a time.

    Args:
        features: The function from an image (1, C, H, W) to a map (1, D, h, w).
        images: Images of one size, each (1, C, H, W).

    Returns:
        The contributions (H, W), float64.

    Raises:
        ValueError: There is no image, images are of several sizes, or the output is not a map.

    Example:
        >>> import torch
        >>> conv = torch.nn.Conv2d(3, 8, 5, padding=2)
        >>> field = contributions(conv, torch.randn(20, 1, 3, 15, 15))
        >>> int((field > 0).sum())
        25
    """
    total, number = None, 0
    for image in images:
        image = image.detach().requires_grad_()
        with torch.enable_grad():
            output = features(image)
            if output.dim() != 4:
                raise ValueError(f'expected a map of shape (1, D, h, w), got {tuple(output.shape)}')
            centre = output[:, :, output.shape[2] // 2, output.shape[3] // 2].relu().sum()
            gradient, = torch.autograd.grad(centre, image)
        score = gradient.relu().double().mean(dim=(0, 1)).cpu().numpy()
        if total is not None and score.shape != total.shape:
            raise ValueError(f'images of one size are needed, got {total.shape} and {score.shape}')
        total = score if total is None else total + score
        number += 1
    if total is None:
        raise ValueError('there is no image')
    return total / number


def square_sides(field: np.ndarray, shares: Sequence[float] = SHARES) -> list[int]:
    """Find the sides of the smallest squares around the central pixel that hold these shares of the sum.

    A side is odd, and at most the image's longer side or 1 more; a square is cropped at the image's border.

    Args:
        field: Contributions (H, W), not negative.
        shares: Shares between 0 and 1.

    Raises:
        ValueError: All contributions are zero, or some are negative or not finite.
    """
    if not np.isfinite(field).all() or field.min() < 0 or field.sum() == 0:
        raise ValueError('a field has contributions that are finite and not negative, and not all zero')
    height, width = field.shape
    rings = np.maximum(np.abs(np.arange(height) - height // 2)[:, None], np.abs(np.arange(width) - width // 2))
    held = np.cumsum(np.bincount(rings.ravel(), weights=field.ravel()))
    return [2 * int(np.argmax(held >= share * held[-1] * (1 - 1e-9))) + 1 for share in shares]


def area_ratios(field: np.ndarray, shares: Sequence[float] = SHARES) -> list[float]:
    """The areas of the squares of :func:`square_sides`, relative to the image's area.

    Example:
        >>> field = np.zeros((9, 9))
        >>> field[3:6, 3:6] = 1
        >>> [round(ratio, 3) for ratio in area_ratios(field, (0.1, 0.5, 0.99))]
        [0.012, 0.111, 0.111]
    """
    height, width = field.shape

    def extent(side: int, length: int) -> int:
        return min(length // 2 + side // 2 + 1, length) - max(length // 2 - side // 2, 0)

    return [extent(side, height) * extent(side, width) / field.size for side in square_sides(field, shares)]


def replknet_scores(field: np.ndarray) -> np.ndarray:
    """Scores as in RepLKNet's table of area ratios: log10(1 + contributions), summed over three channels.

    They depend on the size of the gradients, and so on the scale of the features: with gradients much smaller than 1
    they are proportional to the contributions; with larger ones, distant pixels have more weight.
    """
    return np.log10(1 + 3 * field)
