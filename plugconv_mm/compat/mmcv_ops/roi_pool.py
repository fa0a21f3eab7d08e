"""RoI pooling (Girshick, ICCV 2015).

torchvision has one, but rounds a box to whole pixels before it pools (the Caffe form), and mmcv does not: its numbers
would be wrong here.
"""
import torch
from torch import Tensor

from plugconv_mm.compat.mmcv_ops.checks import check_rois, check_shape, compute_dtype


def _bins(starts: Tensor, ends: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Return for each box and bin along one axis the pixels it covers, (K, bins, widest), and which are real."""
    step = ((ends - starts) / bins)[:, None]
    index = torch.arange(bins, device=starts.device)
    low = torch.floor(index * step + starts[:, None]).clamp(0, size).long()
    high = torch.ceil((index + 1) * step + starts[:, None]).clamp(0, size).long()
    widest = max(int((high - low).max()), 1)
    pixels = low[..., None] + torch.arange(widest, device=starts.device)
    real = (pixels < high[..., None]) & (ends > starts)[:, None, None]
    return pixels.clamp(max=size - 1), real


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Pool with unrounded boxes into ``output`` (K, C, height, width); an empty bin is 0 with ``argmax`` -1."""
    check_shape('roi_pool', 'input', input, (None, None, None, None))
    check_rois('roi_pool', rois, input.size(0))
    if not rois.size(0):
        return
    dtype = compute_dtype('roi_pool', input=input, rois=rois)
    height, width = input.shape[2:]
    corners = rois.to(dtype)[:, 1:] + rois.new_tensor([0, 0, 1, 1], dtype=dtype)
    x1, y1, x2, y2 = (corners * spatial_scale).unbind(1)
    rows, real_rows = _bins(y1, y2, pooled_height, height)
    columns, real_columns = _bins(x1, x2, pooled_width, width)

    flat = input.flatten(2)
    # The gathered pixels of one slice of boxes stay below 2^24 numbers.
    per_box = input.size(1) * rows[0].numel() * columns[0].numel()
    for part in torch.arange(rois.size(0), device=rois.device).split(max(1, 2**24 // max(per_box, 1))):
        # (k, pooled_height, pooled_width, rows of a bin, columns of a bin)
        pixels = rows[part][:, :, None, :, None] * width + columns[part][:, None, :, None, :]
        real = real_rows[part][:, :, None, :, None] & real_columns[part][:, None, :, None, :]
        pixels, real = pixels.flatten(3), real.flatten(3)
        batch = rois[part, 0].long()[:, None, None, None]
        values = flat[batch, :, pixels].movedim(-1, 1)  # (k, C, pooled_height, pooled_width, pixels of a bin)
        best, where = values.masked_fill(~real[:, None], -torch.inf).max(dim=-1)
        source = pixels[:, None].expand_as(values).gather(-1, where[..., None])[..., 0]
        empty = ~real.any(dim=-1)[:, None]
        output[part] = best.masked_fill(empty, 0)
        argmax[part] = source.masked_fill(empty, -1).to(argmax.dtype)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Add each bin's gradient to the pixel it took its maximum from."""
    dtype = compute_dtype('roi_pool', grad_output=grad_output, rois=rois)
    batch_size, channels, height, width = grad_input.shape
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    target = plane[..., None] * (height * width) + argmax.flatten(2).clamp(min=0)
    grad = grad_output.to(dtype).masked_fill(argmax < 0, 0)
    total = grad.new_zeros(grad_input.numel()).index_add_(0, target.flatten(), grad.flatten())
    grad_input.copy_(total.view(batch_size, channels, height, width))
