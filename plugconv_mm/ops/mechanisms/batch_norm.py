"""Batch normalisation by running statistics: folded into the convolution before it, and for a single value."""
from typing import TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.ops.mechanisms.plain_layer import is_plain


def folds(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether `norm` is a fixed affine map per channel: a plain BatchNorm that uses its running statistics."""
    return not norm.training and is_plain(norm, _BatchNorm, nn.SyncBatchNorm) and norm.running_mean is not None


def fold_batch_norm(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The scale and shift, (C) each, by which a BatchNorm with running statistics maps each channel.

    Differentiable with respect to the weight and bias of `norm`.
    """
    mean, var, weight, bias = norm.running_mean, norm.running_var, norm.weight, norm.bias
    assert mean is not None and var is not None, 'a BatchNorm without running statistics has no scale and shift'
    scale = (var + norm.eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = mean * scale
    return scale, -shift if bias is None else bias - shift


def conv_bn(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))``, in one convolution where both are plain and `norm` uses its running statistics.

    Scaling the kernel costs next to nothing beside the pass over the whole map that is saved.

    Args:
        conv: An ``nn.Conv2d`` or any other module. One whose ``takes_affine`` is true, such as :class:`KWConv2d`,
            has a ``forward`` that takes the scale and the shift.
        norm: The normalisation that follows.
        x: Map (N, C, H, W).
    """
    if not folds(norm):
        return norm(conv(x))
    if getattr(conv, 'takes_affine', False) and is_plain(conv, type(conv)):
        return conv(x, *fold_batch_norm(norm))
    if not is_plain(conv, nn.Conv2d):
        return norm(conv(x))
    scale, shift = fold_batch_norm(norm)
    bias = conv.bias
    if bias is not None:
        shift = shift + scale * bias
    return conv._conv_forward(x, conv.weight * scale[:, None, None, None], shift)


def norm_of_features(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(x)`` of features (N, C) or (N, C, 1, 1); a single sample is normalised by the running statistics.

    A BatchNorm in training refuses one value per channel, which has no variance. The statistics stay as they are. A
    SyncBatchNorm is called whatever it gets, as other processes wait for it.
    """
    # The size is asked for last: exported graphs, which are of evaluation, would be fixed to it.
    if not (norm.training and isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm)
            and norm.running_mean is not None and x.shape[0] == 1):
        return norm(x)
    if is_plain(norm, _BatchNorm):
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    norm.eval()
    try:
        return norm(x)
    finally:
        norm.train()
