"""Attention masks of PSANet (Zhao et al., ECCV 2018): from the neighbourhood of each pixel to the whole map.

Channel (i, j) of a pixel's mask belongs to the pixel i - half_h rows below and j - half_w columns right of it.
"""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape

_DISTRIBUTE = 1


def _gather(source: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Take (N, height * width, H, W) at places of its second axis that differ from pixel to pixel.

    Args:
        source: The tensor.
        rows: The row to take for each result and row of pixels, (A, H); outside of ``height`` there is 0.
        columns: The column to take for each result and column of pixels, (B, W); outside of ``width`` there is 0.

    Returns:
        (N, A * B, H, W).
    """
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None]
    index = (rows[:, None, :, None] * width + columns[:, None]).where(inside, 0).flatten(0, 1)
    taken = source.gather(1, index.expand(source.size(0), *index.shape))
    return taken.masked_fill(~inside.flatten(0, 1), 0)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
                    h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Write the masks over the whole map into ``output`` (N, H * W, H, W), 0 beyond a pixel's neighbourhood.

    ``input`` is (N, h_mask * w_mask, H, W). With ``psa_type`` 0 (collect) a pixel of ``output`` holds in its channels
    what its own mask says of every pixel, with 1 (distribute) what the masks of every pixel say of it.
    """
    check_shape('psamask', 'input', input, (num_, h_mask * w_mask, h_feature, w_feature))
    check_shape('psamask', 'output', output, (num_, h_feature * w_feature, h_feature, w_feature))
    rows, columns = (place[:, None] - place + half for place, half in (
        (torch.arange(h_feature, device=input.device), half_h_mask),
        (torch.arange(w_feature, device=input.device), half_w_mask)))
    masks = _gather(input, rows, columns, h_mask, w_mask)
    if psa_type == _DISTRIBUTE:
        masks = masks.flatten(2).mT.reshape(output.shape)
    output.copy_(masks)


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, h_feature: int,
                     w_feature: int, h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Write the gradient by the masks of the neighbourhoods."""
    check_shape('psamask', 'grad_output', grad_output, (num_, h_feature * w_feature, h_feature, w_feature))
    if psa_type == _DISTRIBUTE:
        grad_output = grad_output.flatten(2).mT.reshape(grad_output.shape)
    rows, columns = (torch.arange(size, device=grad_output.device)[:, None] - half
                     + torch.arange(feature, device=grad_output.device)
                     for size, half, feature in ((h_mask, half_h_mask, h_feature), (w_mask, half_w_mask, w_feature)))
    grad_input.copy_(_gather(grad_output, rows, columns, h_feature, w_feature))
