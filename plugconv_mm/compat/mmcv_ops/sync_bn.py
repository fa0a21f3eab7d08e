"""Steps of mmcv's synchronised batch normalisation; mmcv's Python side sums up over the processes between them.

Inputs and outputs are (N, C, H * W), statistics and parameters (C, ) in float32.
"""
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype


def _floats(input: Tensor) -> Tensor:
    check_shape('sync_bn', 'input', input, (None, None, None))
    return input.to(compute_dtype('sync_bn', input=input))


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write the mean of each channel."""
    mean.copy_(_floats(input).mean(dim=(0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write each channel's mean square distance from ``mean``."""
    var.copy_((_floats(input) - mean[:, None]).square().mean(dim=(0, 2)))


def sync_bn_forward_output(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor,
                           running_mean: Tensor, running_var: Tensor, norm: Tensor, std: Tensor, output: Tensor,
                           eps: float, momentum: float | Tensor, group_size: int) -> None:
    """Write the normalised input, its affine map and the standard deviation, and move the running statistics."""
    std.copy_((var + eps).sqrt())
    norm.copy_((_floats(input) - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.size(0) * input.size(2) * group_size
    unbiased = var * count / (count - 1) if count > 1 else var
    for running, value in ((running_mean, mean), (running_var, unbiased)):
        running.copy_(momentum * value + (1 - momentum) * running)


def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Write the gradients by weight and bias."""
    grad = _floats(grad_output)
    grad_weight.copy_((grad * norm).sum(dim=(0, 2)))
    grad_bias.copy_(grad.sum(dim=(0, 2)))


def sync_bn_backward_data(grad_output: Tensor, weight: Tensor, grad_weight: Tensor, grad_bias: Tensor, norm: Tensor,
                          std: Tensor, grad_input: Tensor) -> None:
    """Write the gradient by the input."""
    count = grad_output.size(0) * grad_output.size(2)
    shared = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    grad_input.copy_(weight[:, None] * (_floats(grad_output) - shared) / std[:, None])
