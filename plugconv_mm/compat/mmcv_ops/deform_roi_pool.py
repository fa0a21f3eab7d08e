"""Deformable RoI pooling (Dai et al., ICCV 2017): averages of bins that offsets have moved."""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_rois, check_shape, compute_dtype
from plugconv_mm.compat.mmcv_ops.sampling import corners, sampling_axis, slices, weighted_sums


def _pool(input: Tensor, rois: Tensor, offset: Tensor, size: tuple[int, int], spatial_scale: float,
          sampling_ratio: int, gamma: float, grad_output: Tensor | None = None) -> tuple[Tensor, ...]:
    """Compute the output, or the gradients by input and offset."""
    check_shape('deform_roi_pool', 'input', input, (None, None, None, None))
    check_rois('deform_roi_pool', rois, input.size(0))
    if offset.numel():
        check_shape('deform_roi_pool', 'offset', offset, (rois.size(0), 2, *size))
    dtype = compute_dtype('deform_roi_pool', input=input, rois=rois, offset=offset)
    input, rois = input.detach().to(dtype).requires_grad_(grad_output is not None), rois.to(dtype)
    if not rois.size(0):
        return (input.new_zeros(0, input.size(1), *size), ) if grad_output is None else (
            torch.zeros_like(input), torch.zeros_like(offset))
    (x1, y1, x2, y2) = (rois[:, 1:] * spatial_scale - .5).unbind(1)
    rows, columns = sampling_axis(y2 - y1, size[0], sampling_ratio), sampling_axis(x2 - x1, size[1], sampling_ratio)
    reach = gamma * torch.stack((x2 - x1, y2 - y1), dim=1)[..., None, None]
    shift = reach * offset.to(dtype) if offset.numel() else rois.new_zeros(rois.size(0), 2, *size)
    y = (rows.distance + y1[:, None, None])[:, :, None, :, None]
    x = (columns.distance + x1[:, None, None])[:, None, :, None, :]
    share = (rows.real[:, :, None] & columns.real[:, None]) / (rows.count * columns.count).clamp(min=1)[:, None, None]

    pooled, grad_input, grad_shift = [], torch.zeros_like(input), torch.zeros_like(shift)
    for part in slices(rois.size(0), 4 * rows.distance[0].numel() * columns.distance[0].numel()):
        at_x, at_y = (position[part] + move[part, ..., None, None]
                      for position, move in zip((x, y), shift.unbind(1), strict=True))
        at_y, at_x = torch.broadcast_tensors(at_y, at_x)
        pixels, weights = corners(at_y, at_x, *input.shape[2:])
        weights = weights * share[part, None, None, :, :, None]
        weights.requires_grad_(grad_output is not None)
        with torch.set_grad_enabled(grad_output is not None):
            sums = weighted_sums(input, rois[part, 0], *(tensor.flatten(1, 2).flatten(2)
                                                         for tensor in (pixels, weights))).unflatten(2, size)
            if grad_output is None:
                pooled.append(sums)
                continue
            by_input, pull = torch.autograd.grad(sums, (input, weights), grad_output[part].to(dtype))
        grad_input += by_input
        slopes = _slopes(at_y, at_x, pixels, pull, input.size(3)) * share[part, None, None]
        inside = (at_y >= -1) & (at_y <= input.size(2)) & (at_x >= -1) & (at_x <= input.size(3))
        grad_shift[part] = (slopes * inside).sum(dim=(-2, -1)).movedim(0, 1)
    if grad_output is None:
        return torch.cat(pooled),
    return grad_input, grad_shift * reach if offset.numel() else torch.zeros_like(offset)


def _slopes(y: Tensor, x: Tensor, pixels: Tensor, pull: Tensor, width: int) -> Tensor:
    """Compute the slopes by x and y (2, *) from the gradients ``pull`` (*, 4) of the weights of four pixels.

    As in mmcv's kernels, a point of the outermost pixel beyond the top or left border slides on with the slope that
    it would have inside, though its value there is the border's.
    """
    top_left, top_right, bottom_left, bottom_right = pull.unbind(-1)
    (left, right), (top, bottom) = ((part[..., first], part[..., second]) for part, first, second in (
        (pixels % width, 0, 1), (pixels // width, 0, 2)))
    by_x = bottom_right * (y - top) + top_right * (bottom - y) + bottom_left * (top - y) + top_left * (y - bottom)
    by_y = bottom_right * (x - left) + bottom_left * (right - x) + top_right * (left - x) + top_left * (x - right)
    return torch.stack((by_x, by_y))


def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, pooled_height: int,
                            pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float) -> None:
    """Write the averages into ``output`` (K, C, pooled_height, pooled_width).

    ``offset`` (K, 2, pooled_height, pooled_width), or empty, moves the bins by ``gamma`` times the RoI's width (first)
    and height.
    """
    output.copy_(_pool(input, rois, offset, (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma)[0])


def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor,
                             grad_offset: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float,
                             sampling_ratio: int, gamma: float) -> None:
    """Write the gradients by input and offset."""
    by_input, by_offset = _pool(input, rois, offset, (pooled_height, pooled_width), spatial_scale, sampling_ratio,
                                gamma, grad_output)
    grad_input.copy_(by_input)
    grad_offset.copy_(by_offset)
