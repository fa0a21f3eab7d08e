"""Multi-scale deformable attention (Zhu et al., ICLR 2021), which mmcv calls here for CUDA tensors only."""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import compute_dtype


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Sample by mmcv's own PyTorch form. ``im2col_step`` has no meaning here."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    dtype = compute_dtype('ms_deform_attn', value=value, sampling_locations=sampling_locations,
                          attention_weights=attention_weights)
    inputs = (tensor.to(dtype) for tensor in (value, sampling_locations, attention_weights))
    return multi_scale_deformable_attn_pytorch(next(inputs), value_spatial_shapes, *inputs).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Write the gradients, by autograd. A point that samples nothing has no slope, at exactly -1 as elsewhere."""
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
        output = ms_deform_attn_forward(inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:],
                                        im2col_step)
        grad_by_value, grad_by_location, grad_by_weight = torch.autograd.grad(output, inputs, grad_output)
    # grid_sample lets the pixels of the border pull at a point one pixel away from them, mmcv's kernels do not.
    size = value_spatial_shapes.flip(-1)[:, None].to(sampling_locations)
    point = sampling_locations * size - .5
    outside = ((point <= -1) | (point >= size)).any(dim=-1, keepdim=True)
    grad_value.copy_(grad_by_value)
    grad_sampling_loc.copy_(grad_by_location.masked_fill(outside, 0))
    grad_attn_weight.copy_(grad_by_weight)
