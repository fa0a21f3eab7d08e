"""CARAFE (Wang et al., ICCV 2019): upsampling by a kernel of its own for each output pixel.

mmcv's fast and naive kernels differ in their layout of memory alone, and are one here. Their scratch tensors stay as
they are but for ``rfeatures``, which takes the features from the forward to the backward call.
"""
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype


def _taps(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
          ) -> tuple[Tensor, Tensor, Iterator[tuple[int, int, int]]]:
    """Check and arrange the operands.

    Returns:
        The padded features (N, groups, C / groups, H + kernel - 1, 1, W + kernel - 1, 1), the masks (N, groups,
        kernel * kernel, H, scale, W, scale), and the number, row and column of each tap of a kernel.
    """
    check_shape('carafe', 'features', features, (None, None, None, None))
    batch_size, channels, height, width = features.shape
    check_shape('carafe', 'masks', masks, (batch_size, group_size * kernel_size**2, height * scale_factor,
                                           width * scale_factor))
    dtype = compute_dtype('carafe', features=features, masks=masks)
    padded = F.pad(features.to(dtype), [kernel_size // 2] * 4).unflatten(1, (group_size, channels // group_size))
    masks = masks.to(dtype).view(batch_size, group_size, kernel_size**2, height, scale_factor, width, scale_factor)
    taps = ((row * kernel_size + column, row, column) for row in range(kernel_size) for column in range(kernel_size))
    return padded[..., :, None, :, None], masks, taps


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int,
                         scale_factor: int) -> None:
    """Write the upsampled features into ``output`` (N, C, H * scale_factor, W * scale_factor).

    ``masks`` (N, group_size * kernel_size^2, H * scale_factor, W * scale_factor) holds the kernel of each output
    pixel for each group of channels.
    """
    padded, masks, taps = _taps(features, masks, kernel_size, group_size, scale_factor)
    height, width = features.shape[2:]
    total = padded.new_zeros(*padded.shape[:3], height, scale_factor, width, scale_factor)
    for number, row, column in taps:
        total.addcmul_(padded[:, :, :, row:row + height, :, column:column + width], masks[:, :, None, number])
    output.copy_(total.view(output.shape))


def carafe_naive_backward(top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                          kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Write the gradients by the features and by the masks."""
    padded, masks, taps = _taps(features, masks, kernel_size, group_size, scale_factor)
    height, width = features.shape[2:]
    grad = top_grad.to(padded.dtype).reshape(*padded.shape[:3], height, scale_factor, width, scale_factor)
    by_padded, by_masks = padded.new_zeros(padded.shape), masks.new_zeros(masks.shape)
    for number, row, column in taps:
        window = (..., slice(row, row + height), slice(None), slice(column, column + width), slice(None))
        by_padded[window] += (grad * masks[:, :, None, number]).sum(dim=(4, 6), keepdim=True)
        by_masks[:, :, number] = (grad * padded[window]).sum(dim=2)
    border = kernel_size // 2
    by_features = by_padded[:, :, :, border:border + height, 0, border:border + width, 0]
    bottom_grad.copy_(by_features.reshape(bottom_grad.shape))
    mask_grad.copy_(by_masks.view(mask_grad.shape))


def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor,
                   output: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Write the upsampled features into ``output``, see :func:`carafe_naive_forward`."""
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)
    rfeatures.copy_(features)


def carafe_backward(top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
                    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                    kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Write the gradients by the features and by the masks."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)
