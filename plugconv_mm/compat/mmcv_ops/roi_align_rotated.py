"""RoIAlign of rotated boxes (RRPN, Ma et al., TMM 2018), for mmrotate's detectors."""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_rois, check_shape, compute_dtype
from plugconv_mm.compat.mmcv_ops.sampling import corners, sampling_axis, slices, weighted_sums


def _average(input: Tensor, rois: Tensor, size: tuple[int, int], spatial_scale: float, sampling_ratio: int,
             aligned: bool, clockwise: bool) -> Tensor:
    """Average the points of each bin: (K, C, height, width), differentiable by the input."""
    if not rois.size(0):
        return input.new_zeros(0, input.size(1), *size) + input.sum() * 0
    center_x, center_y = (rois[:, 1:3] * spatial_scale - (.5 if aligned else 0)).T[..., None, None, None, None]
    width, height = (rois[:, 3:5] * spatial_scale).T
    if not aligned:
        width, height = width.clamp(min=1), height.clamp(min=1)
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    rows, columns = sampling_axis(height, size[0], sampling_ratio), sampling_axis(width, size[1], sampling_ratio)
    # From the centre: (K, height, 1, points, 1) and (K, 1, width, 1, points)
    along_y = (rows.distance - height[:, None, None] / 2)[:, :, None, :, None]
    along_x = (columns.distance - width[:, None, None] / 2)[:, None, :, None, :]
    cos, sin = (function(angle)[:, None, None, None, None] for function in (torch.cos, torch.sin))
    share = (rows.real[:, :, None] & columns.real[:, None]) / (rows.count * columns.count).clamp(min=1)[:, None, None]
    pooled = []
    for part in slices(rois.size(0), 4 * rows.distance[0].numel() * columns.distance[0].numel()):
        y = along_y[part] * cos[part] - along_x[part] * sin[part] + center_y[part]
        x = along_y[part] * sin[part] + along_x[part] * cos[part] + center_x[part]
        pixels, weights = corners(y, x, *input.shape[2:])
        weights = weights * share[part, None, None, :, :, None]
        pooled.append(weighted_sums(input, rois[part, 0], *(tensor.flatten(1, 2).flatten(2)
                                                            for tensor in (pixels, weights))))
    return torch.cat(pooled).unflatten(2, size)


def roi_align_rotated_forward(input: Tensor, rois: Tensor, output: Tensor, pooled_height: int, pooled_width: int,
                              spatial_scale: float, sampling_ratio: int, aligned: bool, clockwise: bool) -> None:
    """Write the averages of each bin into ``output`` (K, C, pooled_height, pooled_width).

    A row of ``rois`` (K, 6) holds the image, the centre's x and y, width, height and the angle in radians.
    """
    check_shape('roi_align_rotated', 'input', input, (None, None, None, None))
    check_rois('roi_align_rotated', rois, input.size(0), numbers=6)
    dtype = compute_dtype('roi_align_rotated', input=input, rois=rois)
    output.copy_(_average(input.to(dtype), rois.to(dtype), (pooled_height, pooled_width), spatial_scale,
                          sampling_ratio, aligned, clockwise))


def roi_align_rotated_backward(grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooled_height: int,
                               pooled_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool,
                               clockwise: bool) -> None:
    """Write the gradient by the input, by autograd of the average, which is linear in it."""
    dtype = compute_dtype('roi_align_rotated', grad_output=grad_output, rois=rois)
    with torch.enable_grad():
        input = torch.zeros(grad_input.shape, dtype=dtype, device=grad_output.device, requires_grad=True)
        output = _average(input, rois.to(dtype), (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned,
                          clockwise)
        grad_input.copy_(torch.autograd.grad(output, input, grad_output.to(dtype))[0])
