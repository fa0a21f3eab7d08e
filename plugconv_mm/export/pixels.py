"""Images as OpenCV reads them, prepared inside the graph as a model's preprocessor prepares them."""
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugconv_mm.errors import ExportError


def padded_shape(model: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width to which the preprocessor of a model pads an image when it is evaluated, or those given."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    if hasattr(preprocessor, 'test_cfg'):  # mmseg's, which pads as this tells, or not at all
        test_cfg = preprocessor.test_cfg or {}
        divisor, least = test_cfg.get('size_divisor') or 1, test_cfg.get('size') or shape
    else:
        divisor, least = getattr(preprocessor, 'pad_size_divisor', None) or 1, shape
    height, width = (-(-max(side, low) // divisor) * divisor for side, low in zip(shape, least, strict=True))
    return height, width


def swaps_channels(preprocessor: Any) -> bool:
    """Whether a preprocessor turns the BGR of OpenCV into RGB."""
    # mmpretrain calls it to_rgb, the others _channel_conversion
    return bool(getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False))


def padding_value(preprocessor: Any) -> float:
    """The value of padding, behind the normalisation."""
    return float(getattr(preprocessor, 'pad_value', 0))


class Pixels(nn.Module):
    """Order of the channels, normalisation and padding of images.

    Args:
        model: A model of mmdet, mmseg or mmpretrain.

    Raises:
        ExportError: It has no preprocessor.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        preprocessor = getattr(model, 'data_preprocessor', None)
        if preprocessor is None:
            raise ExportError(f'{type(model).__name__} has no data_preprocessor, which tells how pixels of uint8 '
                              'are prepared: export it for normalised images')
        self.swaps = swaps_channels(preprocessor)
        mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
        self.register_buffer('mean', None if mean is None else mean.detach().clone().view(1, -1, 1, 1))
        self.register_buffer('std', None if std is None else std.detach().clone().view(1, -1, 1, 1))
        self.pad_value = padding_value(preprocessor)

    def forward(self, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Prepare images.

        Args:
            pixels: (B, H, W, 3) BGR, uint8.
            shape: Height and width to which images are padded, at the bottom and on the right.

        Returns:
            Normalised images (B, 3, H', W').
        """
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)
        if self.swaps:
            x = torch.cat((x[:, 2:], x[:, 1:2], x[:, :1]), 1)
        if self.mean is not None:
            x = (x - self.mean) / self.std
        bottom, right = shape[0] - x.shape[2], shape[1] - x.shape[3]
        return F.pad(x, (0, right, 0, bottom), value=self.pad_value) if bottom or right else x
