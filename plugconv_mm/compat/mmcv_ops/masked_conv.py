"""Columns of chosen pixels, for the masked convolution of Guided Anchoring (Wang et al., CVPR 2019)."""
import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape


def masked_im2col_forward(im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, kernel_h: int,
                          kernel_w: int, pad_h: int, pad_w: int) -> None:
    """Write the window at each chosen pixel of ``im`` (1, C, H, W) into ``col`` (C * kernel_h * kernel_w, pixels).

    A window starts ``pad_h`` rows above its pixel and ``pad_w`` columns left of it, and is 0 beyond the borders.
    """
    check_shape('masked_im2col', 'im', im, (1, None, None, None))
    check_shape('masked_im2col', 'mask_w_idx', mask_w_idx, (mask_h_idx.size(0), ))
    check_shape('masked_im2col', 'col', col, (im.size(1) * kernel_h * kernel_w, mask_h_idx.size(0)))
    padded = F.pad(im[0], (pad_w, max(kernel_w - 1 - pad_w, 0), pad_h, max(kernel_h - 1 - pad_h, 0)))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].reshape(col.shape))


def masked_col2im_forward(col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int,
                          channels: int) -> None:
    """Write the results (C, pixels) to their pixels of ``im`` (1, C, height, width)."""
    check_shape('masked_col2im', 'col', col, (channels, mask_h_idx.size(0)))
    check_shape('masked_col2im', 'im', im, (1, channels, height, width))
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
