"""Batch normalisation folded into the convolution before it."""
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def folds(norm: nn.Module) -> bool:
    """Whether `norm` is a fixed affine map per channel: a BatchNorm that uses its running statistics."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None


def fold_batch_norm(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The scale and shift, (C) each, by which a BatchNorm with running statistics maps each channel.

    Differentiable with respect to the weight and bias of `norm`.
    """
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def conv_bn(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))``, in one convolution where `norm` uses its running statistics.

    Scaling the kernel costs next to nothing beside the pass over the whole map that is saved.

    Args:
        conv: An ``nn.Conv2d`` with zero padding, or any other module. One whose ``takes_affine`` is true, such as
            :class:`KWConv2d`, has a ``forward`` that takes the scale and the shift.
        norm: The normalisation that follows.
        x: Map (N, C, H, W).
    """
    affine = getattr(conv, 'takes_affine', False)
    if not folds(norm) or not (affine or isinstance(conv, nn.Conv2d)):
        return norm(conv(x))
    scale, shift = fold_batch_norm(norm)
    if affine:
        return conv(x, scale, shift)
    if conv.bias is not None:
        shift = shift + scale * conv.bias
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding, conv.dilation,
                    conv.groups)
