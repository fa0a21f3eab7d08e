"""Layer normalisation over the channels of a map."""
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Normalise each position of a (N, C, H, W) map over its C channels.

    The output is channels-last in memory; an input that is channels-last is read in place, another is copied once.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import LayerNorm2d
        >>> LayerNorm2d(16)(torch.rand(2, 16, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
