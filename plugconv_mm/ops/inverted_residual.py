"""The inverted residual, a narrow map that is wide only where it is convolved depthwise.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.batch_norm import conv_bn, fold, folds
from plugconv_mm.ops.strips import strips_pay

# Bytes of the wide map that are made at a time where it is larger.
_STRIP_BYTES = 2 * 2**20


def inverted_residual(x: Tensor, *layers: Sequence[nn.Module]) -> Tensor:
    """A 1x1 convolution or none, a depthwise one and a last 1x1, each with a norm and perhaps an activation.

    In inference on a CPU a wide map that does not fit the cache is never there as a whole: a few rows of it are made,
    with the neighbours that the depthwise convolution needs, and used up.

    Args:
        x: Map (N, C, H, W).
        layers: Convolution, norm and, if there is one, activation of each layer. The depthwise convolution is padded
            with zeros and not dilated.
    """
    depthwise = layers[-2][0]
    row = depthwise.in_channels * x.shape[3] * x.element_size()
    if (row * x.shape[2] < 2 * _STRIP_BYTES or not strips_pay(x) or torch.is_autocast_enabled('cpu')
            or not all(folds(norm) for _, norm, *_ in layers)):
        return _chain(x, layers)
    weights = [fold(conv, norm) for conv, norm, *_ in layers]
    (size, _), (stride, _), (padding, margin) = depthwise.kernel_size, depthwise.stride, depthwise.padding
    height = x.shape[2]
    rows = (height + 2 * padding - size) // stride + 1
    columns = (x.shape[3] + 2 * margin - depthwise.kernel_size[1]) // depthwise.stride[1] + 1
    y = torch.empty((len(x), len(weights[-1][0]), rows, columns), dtype=x.dtype, memory_format=torch.channels_last)
    step = max(_STRIP_BYTES // (row * stride), 1)
    for sample, target in zip(x.split(1), y.split(1), strict=True):
        for first in range(0, rows, step):
            last = min(first + step, rows)
            start, stop = first * stride - padding, (last - 1) * stride - padding + size
            part = sample[:, :, max(start, 0):stop]
            for (weight, bias), (*_, act) in zip(weights[:-2], layers[:-2], strict=True):
                part = act(F.conv2d(part, weight, bias))
            if start < 0 or stop > height:  # what the convolution finds outside the map
                part = F.pad(part, (0, 0, max(-start, 0), max(stop - height, 0)))
            part = F.conv2d(part, *weights[-2], depthwise.stride, (0, margin), groups=depthwise.groups)
            for act in layers[-2][2:]:
                part = act(part)
            target[:, :, first:last] = F.conv2d(part, *weights[-1])
    return y


def _chain(x: Tensor, layers: Sequence[Sequence[nn.Module]]) -> Tensor:
    for conv, norm, *acts in layers:
        x = conv_bn(conv, norm, x)
        for act in acts:
            x = act(x)
    return x
