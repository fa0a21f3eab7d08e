"""The MLP of a ConvNeXt's block."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.token_chunks import token_chunks, token_chunks_pay


def residual_mlp(x: Tensor, y: Tensor, norm: nn.Module, fc1: nn.Module, fc2: nn.Module, gamma: Tensor,
                 drop_path: nn.Module) -> Tensor:
    """``x + drop_path(gamma * fc2(GELU(fc1(norm(y)))))`` at each position of maps (N, C, H, W).

    The output is channels-last in memory if `x` is. In inference on a CPU it is computed in chunks, from the weights of
    the layers if they are plain; others are called.

    Paper: Liu et al., "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545.

    Args:
        x: Shortcut.
        y: Output of the block's convolution, in the shape of `x`.
        norm: LayerNorm over the last axis of (N, H, W, C), as are the next two.
        fc1: Linear layer from C to the hidden width.
        fc2: Linear layer from there to C.
        gamma: Layer scale (C).
        drop_path: Stochastic depth, the identity in evaluation mode.
    """
    tokens = y.permute(0, 2, 3, 1)
    # Only float32 holds what a young gamma would leave of the weights.
    if autocast_dtype(y) is not None or not is_plain(fc2, nn.Linear):
        y = fc2(F.gelu(fc1(norm(tokens)))).permute(0, 3, 1, 2)
        return torch.addcmul(x, gamma[:, None, None], drop_path(y))
    # gamma scales the weights: cheaper than scaling the map.
    weight, bias = fc2.weight * gamma[:, None], None if fc2.bias is None else fc2.bias * gamma
    if (drop_path.training or not token_chunks_pay(x) or not is_plain(drop_path, type(drop_path))
            or not is_plain(norm, nn.LayerNorm) or not is_plain(fc1, nn.Linear)):
        y = F.linear(F.gelu(fc1(norm(tokens))), weight, bias)
        return x + drop_path(y.permute(0, 3, 1, 2))
    out = torch.empty_like(y, memory_format=torch.channels_last)
    for shortcut, part, target in token_chunks(x, y, out):
        part = F.layer_norm(part, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        part = F.gelu(_linear(part, fc1.weight, fc1.bias))
        torch.add(shortcut, _linear(part, weight, bias), out=target)
    return out


def _linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of (L, C); as a 1x1 convolution, which is up to a sixth faster, where no row is aligned."""
    if weight.shape[0] % 4 == 0 and weight.shape[1] % 4 == 0:
        return F.linear(tokens, weight, bias)
    tokens = tokens[None, :, None].permute(0, 3, 1, 2)
    return F.conv2d(tokens, weight[:, :, None, None], bias)[0, :, :, 0].t()
