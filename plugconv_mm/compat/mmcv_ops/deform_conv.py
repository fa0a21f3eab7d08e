"""Deformable convolution (Dai et al., ICCV 2017) and its modulated form (Zhu et al., CVPR 2019)."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_shape, compute_dtype


def _output_size(input: Tensor, weight: Tensor, geometry: tuple[int, ...]) -> tuple[int, int]:
    """Compute the output's height and width; ``geometry`` is stride, padding and dilation, each (h, w)."""
    height, width = ((size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
                     for size, kernel, stride, pad, dilation in zip(
                         input.shape[2:], weight.shape[2:], geometry[:2], geometry[2:4], geometry[4:], strict=True))
    return height, width


def _outside(offset: Tensor, input: Tensor, weight: Tensor, geometry: tuple[int, ...]) -> Tensor:
    """Tell which taps sample one pixel or more beyond the input: (N, deform_groups, kh, kw, 1, out_h, out_w)."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = geometry
    (out_h, out_w), (kernel_h, kernel_w), (height, width) = offset.shape[2:], weight.shape[2:], input.shape[2:]
    deform_groups = offset.size(1) // (2 * kernel_h * kernel_w)
    steps = offset.view(offset.size(0), deform_groups, kernel_h, kernel_w, 2, out_h, out_w)

    def grid(size: int, factor: int) -> Tensor:
        return torch.arange(size, device=offset.device) * factor

    y = steps[..., 0, :, :] + (grid(kernel_h, dilation_h)[:, None, None, None]
                               + grid(out_h, stride_h)[:, None] - pad_h)
    x = steps[..., 1, :, :] + (grid(kernel_w, dilation_w)[:, None, None] + grid(out_w, stride_w) - pad_w)
    return ((y <= -1) | (y >= height) | (x <= -1) | (x >= width)).unsqueeze(4)


def _deform_conv(operator: str, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None,
                 bias: Tensor | None, geometry: tuple[int, ...], groups: int, deform_groups: int,
                 grad_output: Tensor | None = None) -> tuple[Tensor, ...]:
    """Compute the output, or the gradients by input, weight, offset, mask and bias, with torchvision's kernels."""
    check_shape(operator, 'input', input, (None, None, None, None))
    check_shape(operator, 'weight', weight, (None, None, None, None))
    taps = math.prod(weight.shape[2:])
    if input.size(1) != weight.size(1) * groups or weight.size(0) % groups or input.size(1) % deform_groups:
        raise ValueError(f'{operator}: a weight of shape {tuple(weight.shape)} with groups={groups} and '
                         f'deform_groups={deform_groups} does not fit an input with {input.size(1)} channels')
    batch_size, size = input.size(0), _output_size(input, weight, geometry)
    check_shape(operator, 'offset', offset, (batch_size, 2 * deform_groups * taps, *size))
    tensors = dict(input=input, weight=weight, offset=offset)
    if mask is not None:
        check_shape(operator, 'mask', mask, (batch_size, deform_groups * taps, *size))
        tensors['mask'] = mask
    if bias is not None:
        check_shape(operator, 'bias', bias, (weight.size(0), ))
        tensors['bias'] = bias
    dtype = compute_dtype(operator, **tensors)
    use_mask = mask is not None
    mask = mask if use_mask else input.new_zeros(batch_size, 1)
    bias = input.new_zeros(weight.size(0)) if bias is None else bias
    operands = [tensor.to(dtype) for tensor in (input, weight, offset, mask, bias)]
    if not batch_size:  # torchvision's kernels divide by it
        return (input.new_zeros(0, weight.size(0), *size), ) if grad_output is None else tuple(
            torch.zeros_like(operand) for operand in operands)
    settings = (*geometry, groups, deform_groups, use_mask)
    if grad_output is None:
        return torch.ops.torchvision.deform_conv2d(*operands, *settings),
    grads = torch.ops.torchvision._deform_conv2d_backward(grad_output.to(dtype), *operands, *settings)
    # At a position of exactly -1 torchvision lets the first row or column pull at the offset; mmcv's kernels call
    # it outside, where nothing pulls. With padding and offsets of 0, as training starts, all of the border is there.
    outside = _outside(operands[2], input, weight, geometry)
    steps = grads[2].view(*outside.shape[:4], 2, *size).masked_fill(outside, 0)
    return grads[0], grads[1], steps.view_as(offset), grads[3], grads[4]


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
                        group: int, deformable_group: int, im2col_step: int) -> None:
    """Write the deformable convolution into ``output``. ``im2col_step`` has no meaning here."""
    output.copy_(_deform_conv('deform_conv', input, weight, offset, None, None,
                              (dH, dW, padH, padW, dilationH, dilationW), group, deformable_group)[0])


def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int, dH: int,
                               padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:
    """Write the gradients by input and offset, and leave that by the weight in ``columns``."""
    grad_input, grad_weight, grad_offset, _, _ = _deform_conv(
        'deform_conv', input, weight, offset, None, None, (dH, dW, padH, padW, dilationH, dilationW), group,
        deformable_group, gradOutput)
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)
    # torchvision gives all gradients at once. mmcv hands its scratch tensor on to the call for the weight's gradient,
    # which follows, so it carries that gradient over.
    columns.resize_(grad_weight.shape).copy_(grad_weight)


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor,
                                    columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                                    padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
                                    scale: float, im2col_step: int) -> None:
    """Add ``scale`` times the gradient by the weight to ``gradWeight``."""
    if columns.shape == gradWeight.shape:
        gradWeight.add_(columns, alpha=scale)
        columns.resize_(0)
        return
    grads = _deform_conv('deform_conv', input, gradWeight, offset, None, None,
                         (dH, dW, padH, padW, dilationH, dilationW), group, deformable_group, gradOutput)
    gradWeight.add_(grads[1].to(gradWeight), alpha=scale)


def _as_read(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """View a map of offsets or masks (N, channels, H, W) as mmcv's kernels read it for an output of ``size``.

    They take the numbers of a sample one after another, in the steps of the output's size, and check the map's size
    only in the plain convolution. DyHead (Dai et al., CVPR 2021) rests on it: it convolves the level above with the
    offsets of its own, larger level, and published weights were trained so. The first numbers of each sample are read,
    as of a map of the output's size, and the others have no gradient. A map that holds too few numbers, which they
    would read from beyond its end, is left for the shape check to reject.
    """
    shape = (*tensor.shape[:2], *size)
    if tensor.dim() != 4 or math.prod(tensor.shape[2:]) <= math.prod(size):
        return tensor
    return tensor.flatten(1)[:, :math.prod(shape[1:])].reshape(shape)


def _modulated(input: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor, geometry: tuple[int, ...],
               groups: int, deform_groups: int, with_bias: bool, grad_output: Tensor | None = None
               ) -> tuple[Tensor, ...]:
    """Compute the modulated convolution, or its gradients, of offsets and masks as mmcv's kernels read them."""
    operator = 'modulated_deform_conv'
    check_shape(operator, 'input', input, (None, None, None, None))
    check_shape(operator, 'weight', weight, (None, None, None, None))
    size = _output_size(input, weight, geometry)
    return _deform_conv(operator, input, weight, _as_read(offset, size), _as_read(mask, size),
                        bias if with_bias else None, geometry, groups, deform_groups, grad_output)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int,
                                  stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int,
                                  dilation_w: int, group: int, deformable_group: int, with_bias: bool) -> None:
    """Write the modulated deformable convolution into ``output``.

    ``offset`` and ``mask`` of a larger map than the output are read as flat memory, see :func:`_as_read`.
    """
    output.copy_(_modulated(input, weight, bias, offset, mask,
                            (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), group, deformable_group,
                            with_bias)[0])


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
                                   dilation_h: int, dilation_w: int, group: int, deformable_group: int,
                                   with_bias: bool) -> None:
    """Write all gradients; numbers of ``offset`` and ``mask`` that were not read have 0."""
    grads = _modulated(input, weight, bias, offset, mask, (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
                       group, deformable_group, with_bias, grad_output)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    for target, grad in ((grad_offset, grads[2]), (grad_mask, grads[3])):
        unread = math.prod(target.shape[1:]) - math.prod(grad.shape[1:])
        target.copy_(F.pad(grad.flatten(1), (0, unread)).view(target.shape))
    if with_bias:
        grad_bias.copy_(grads[4])
