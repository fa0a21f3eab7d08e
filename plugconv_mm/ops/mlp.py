"""The MLP of a ConvNeXt's block."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.autocast import autocast_dtype

# Positions that pass at a time in inference on a CPU: their hidden layer stays in the cache, and memory is used again.
_STRIP = 2048


def residual_mlp(x: Tensor, y: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear, gamma: Tensor,
                 drop_path: Callable[[Tensor], Tensor]) -> Tensor:
    """``x + drop_path(gamma * fc2(GELU(fc1(norm(y)))))`` at each position of maps (N, C, H, W).

    The output is channels-last in memory. In inference on a CPU it is computed in strips.

    Paper: Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.

    Args:
        x: The shortcut.
        y: What the block's convolution gave; the same shape.
        norm: Over channels.
        fc1: From C to the hidden width.
        fc2: From there to C.
        gamma: Layer scale (C).
        drop_path: Stochastic depth; passed by in evaluation mode.
    """
    x, y = x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)

    def mlp(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tokens = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return F.linear(F.gelu(fc1(tokens)), weight, bias)

    if autocast_dtype(x) is not None:
        # Only float32 holds what a young gamma leaves of the weights.
        return torch.addcmul(x, gamma, drop_path(mlp(y, fc2.weight, fc2.bias))).permute(0, 3, 1, 2)
    # gamma scales the weights: cheaper than scaling the map.
    weight, bias = fc2.weight * gamma[:, None], fc2.bias * gamma
    if (y.device.type != 'cpu' or norm.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
            or torch.jit.is_tracing()):
        return (x + drop_path(mlp(y, weight, bias))).permute(0, 3, 1, 2)
    out = torch.empty(y.shape, dtype=y.dtype)
    strips = (t.flatten(0, 2).split(_STRIP) for t in (x, y, out))
    for shortcut, part, target in zip(*strips, strict=True):
        torch.add(shortcut, mlp(part, weight, bias), out=target)
    return out.permute(0, 3, 1, 2)
