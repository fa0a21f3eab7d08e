"""RoIAlign (He et al., ICCV 2017), averages and maxima."""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_rois, check_shape, compute_dtype
from plugconv_mm.compat.mmcv_ops.sampling import corners, sampling_axis, slices, weighted_sums

_MAXIMUM = 0


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Write the averages (``pool_mode`` 1) or maxima (0) of each bin into ``output`` (K, C, height, width).

    Maxima leave their positions in ``argmax_y`` and ``argmax_x``. An RoI without area has the maximum 0 and the
    position -1, where mmcv's kernels write the lowest number they know.
    """
    check_shape('roi_align', 'input', input, (None, None, None, None))
    check_rois('roi_align', rois, input.size(0))
    dtype = compute_dtype('roi_align', input=input, rois=rois)
    input, rois = input.to(dtype), rois.to(dtype)
    if pool_mode != _MAXIMUM:
        output.copy_(torch.ops.torchvision.roi_align(input, rois, spatial_scale, aligned_height, aligned_width,
                                                     sampling_ratio, aligned))
    elif rois.size(0):
        _write_maxima(input, rois, output, argmax_y, argmax_x, spatial_scale, sampling_ratio, aligned)


def _write_maxima(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                  spatial_scale: float, sampling_ratio: int, aligned: bool) -> None:
    x1, y1, x2, y2 = (rois[:, 1:] * spatial_scale - (.5 if aligned else 0)).unbind(1)
    # The form without alignment takes a box for a pixel wide at least.
    extents = [extent if aligned else extent.clamp(min=1) for extent in (y2 - y1, x2 - x1)]
    rows, columns = (sampling_axis(extent, bins, sampling_ratio)
                     for extent, bins in zip(extents, output.shape[2:], strict=True))
    y, x = rows.distance + y1[:, None, None], columns.distance + x1[:, None, None]
    real = rows.real[:, :, None] & columns.real[:, None]
    for part in slices(rois.size(0), input.size(1) * y[0].numel() * x[0].numel()):
        # (k, height, width, points of a row, points of a column)
        points = (len(y[part]), y.size(1), x.size(1), y.size(2), x.size(2))
        at_y = y[part, :, None, :, None].expand(points)
        at_x = x[part, None, :, None, :].expand(points)
        pixels, weights = (tensor.flatten(1, 4) for tensor in corners(at_y, at_x, *input.shape[2:]))
        values = weighted_sums(input, rois[part, 0], pixels, weights).unflatten(2, points[1:]).flatten(4)
        missing = ~real[part].flatten(1)[:, None, None, None]
        best, where = values.masked_fill(missing, -torch.inf).max(dim=-1)
        empty = best == -torch.inf
        output[part] = best.masked_fill(empty, 0).to(output.dtype)
        for argmax, position in ((argmax_y, at_y), (argmax_x, at_x)):
            position = position.flatten(3)[:, None].expand_as(values).gather(-1, where[..., None])[..., 0]
            argmax[part] = position.masked_fill(empty, -1).to(argmax.dtype)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Write the gradient by the input; a maximum's goes to the pixels around its position."""
    dtype = compute_dtype('roi_align', grad_output=grad_output, rois=rois)
    if pool_mode != _MAXIMUM:
        grad_input.copy_(torch.ops.torchvision._roi_align_backward(
            grad_output.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
            sampling_ratio, aligned))
        return
    batch_size, channels, height, width = grad_input.shape
    pixels, weights = corners(argmax_y.to(dtype), argmax_x.to(dtype), height, width)
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    target = plane[..., None, None, None] * (height * width) + pixels
    # mmcv marks a bin without a maximum by -1, and takes a maximum that lies there for one.
    grad = (weights * grad_output.to(dtype)[..., None]).masked_fill((argmax_y == -1)[..., None], 0)
    total = grad.new_zeros(grad_input.numel()).index_add_(0, target.flatten(), grad.flatten())
    grad_input.copy_(total.view(grad_input.shape))
