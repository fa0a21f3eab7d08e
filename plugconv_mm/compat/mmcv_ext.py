"""The functions of mmcv's compiled module ``mmcv._ext`` that detection needs, on torchvision and PyTorch.

Each function takes what mmcv's Python side hands to the compiled one (same names, same order, results written into
the tensors handed in) and computes what mmcv's kernels compute, so that nothing above this module notices a
difference. float32 and float64 are computed as they come; float16 and bfloat16 are computed in float32 and rounded
once. Work on CPU and CUDA tensors alike.

- ``nms``, ``roi_align_*`` and both deformable convolutions are torchvision's kernels.
- ``roi_pool_*`` is not: torchvision rounds a box to whole pixels before it pools (the Caffe form), mmcv does not, so
  torchvision's numbers would be wrong here. It is a gather and a maximum in PyTorch.
- ``softnms`` and ``sigmoid_focal_loss_*`` are a few lines of NumPy and PyTorch; ``ms_deform_attn_*`` is mmcv's own
  PyTorch form with autograd for the backward pass.

Everything else mmcv asks for answers ``hasattr`` and raises :class:`OperatorNotBridgedError` when it is called.
"""
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from plugconv_mm.compat.packages import mmcv_build_help


class OperatorNotBridgedError(NotImplementedError):
    """An operator of mmcv was called that exists only in its compiled form."""

    def __init__(self, operator: str, detail: str = ''):
        super().__init__(f"mmcv's compiled operator '{operator}' is not available: mmcv's compiled operators are "
                         f'absent here, and PlugConv-MM replaces only those that detection needs'
                         f'{detail and f" ({detail})"}. {mmcv_build_help()}')


def __getattr__(name: str):
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def not_bridged(*args, **kwargs):
        raise OperatorNotBridgedError(name)

    not_bridged.__name__ = not_bridged.__qualname__ = name
    return not_bridged


def get_compiler_version() -> str:
    return f'not compiled (torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    return 'not available'


def _compute_dtype(operator: str, **tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 where any of the tensors is."""
    dtype, first = torch.float32, None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f'{operator}: {name} must be a floating-point tensor, got {tensor.dtype}; '
                            f'convert it with .float()')
        if first is None:
            first = name
        elif tensor.device != tensors[first].device:
            raise ValueError(f'{operator}: {name} is on {tensor.device} but {first} is on {tensors[first].device}; '
                             f'move them to one device')
        if tensor.dtype == torch.float64:
            dtype = torch.float64
    return dtype


def _check_shape(operator: str, name: str, tensor: Tensor, expected: tuple) -> None:
    """``expected`` holds sizes, and None where any size will do."""
    if tensor.dim() != len(expected) or any(e not in (None, s) for s, e in zip(tensor.shape, expected, strict=True)):
        wanted = ', '.join('*' if e is None else str(e) for e in expected)
        raise ValueError(f'{operator}: {name} must have shape ({wanted}), got {tuple(tensor.shape)}')


# --------------------------------------------------------------------------------------------------------------- nms
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the kept boxes, by falling score. A box measures ``x2 - x1 + offset`` (offset 0 or 1)."""
    _check_shape('nms', 'boxes', boxes, (None, 4))
    _check_shape('nms', 'scores', scores, (boxes.size(0), ))
    dtype = _compute_dtype('nms', boxes=boxes, scores=scores)
    boxes = boxes.to(dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # mmcv holds the threshold as a C float; an IoU equal to it must stay on the same side here.
    return torch.ops.torchvision.nms(boxes, scores.to(dtype), float(np.float32(iou_threshold)))


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017) on the CPU; method 0 is plain NMS, 1 the linear and 2 the Gaussian decay.

    Writes the boxes with their decayed scores into the first rows of ``dets`` (N, 5) and returns the indices of these
    rows. Two boxes without area do not overlap; elsewhere the arithmetic and the order follow mmcv's.
    """
    _check_shape('softnms', 'boxes', boxes, (None, 4))
    _check_shape('softnms', 'scores', scores, (boxes.size(0), ))
    _check_shape('softnms', 'dets', dets, (boxes.size(0), 5))
    if method not in (0, 1, 2):
        raise ValueError(f'softnms: method must be 0 (naive), 1 (linear) or 2 (gaussian), got {method}')
    dtype = _compute_dtype('softnms', boxes=boxes, scores=scores)
    rows = torch.cat((boxes.to(dtype), scores.to(dtype)[:, None]), dim=1).cpu().numpy()
    real = rows.dtype.type
    iou_threshold, sigma, min_score = (real(np.float32(value)) for value in (iou_threshold, sigma, min_score))
    areas = (rows[:, 2] - rows[:, 0] + offset) * (rows[:, 3] - rows[:, 1] + offset)
    order = np.arange(len(rows))

    count, i = len(rows), 0
    while i < count:
        best = i + int(rows[i:count, 4].argmax())
        for array in (rows, areas, order):
            array[[i, best]] = array[[best, i]]
        rest = slice(i + 1, count)
        extent = np.minimum(rows[i, 2:4], rows[rest, 2:4]) - np.maximum(rows[i, :2], rows[rest, :2]) + offset
        overlap = extent.clip(min=0).prod(axis=1)
        union = areas[i] + areas[rest] - overlap
        iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=union != 0)
        if method == 2:
            weight = np.exp(-(iou * iou) / sigma)
        else:
            weight = np.where(iou >= iou_threshold, 1 - iou if method == 1 else real(0), real(1))
        rows[rest, 4] *= weight

        # A box whose score fell too low gives its place to the last one that is still in.
        keep = rows[rest, 4] >= min_score
        kept = int(keep.sum())
        holes = i + 1 + np.flatnonzero(~keep[:kept])
        fillers = i + 1 + kept + np.flatnonzero(keep[kept:])[::-1]
        for array in (rows, areas, order):
            array[holes] = array[fillers]
        count = i + 1 + kept
        i += 1

    dets[:count] = torch.from_numpy(rows[:count]).to(dets)
    return torch.from_numpy(order[:count].copy())


# --------------------------------------------------------------------------------------------------------- RoI pooling
def _check_rois(operator: str, rois: Tensor, batch_size: int) -> None:
    _check_shape(operator, 'rois', rois, (None, 5))
    # The kernels trust this column. Reading it on a GPU would make every call wait for the device.
    if rois.numel() and rois.device.type == 'cpu':
        low, high = (int(value) for value in rois[:, 0].aminmax())
        if low < 0 or high >= batch_size:
            raise ValueError(f'{operator}: the first column of rois holds the index of the picture, 0 to '
                             f'{batch_size - 1} for this batch, got values from {low} to {high}')


def _check_pool_mode(pool_mode: int) -> None:
    if pool_mode != 1:
        raise OperatorNotBridgedError('roi_align', "pool_mode='max'; torchvision has pool_mode='avg' alone")


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """RoIAlign (He et al., ICCV 2017), averages only, into ``output`` (K, C, aligned_height, aligned_width)."""
    _check_pool_mode(pool_mode)
    _check_shape('roi_align', 'input', input, (None, None, None, None))
    _check_rois('roi_align', rois, input.size(0))
    dtype = _compute_dtype('roi_align', input=input, rois=rois)
    output.copy_(torch.ops.torchvision.roi_align(input.to(dtype), rois.to(dtype), spatial_scale, aligned_height,
                                                 aligned_width, sampling_ratio, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    _check_pool_mode(pool_mode)
    dtype = _compute_dtype('roi_align', grad_output=grad_output, rois=rois)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad_output.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        sampling_ratio, aligned))


def _roi_pool_bins(starts: Tensor, ends: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Per box and bin along one axis: the pixels it covers, shape (K, bins, widest), and which of them are real."""
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
    """RoIPool (Girshick, ICCV 2015) with mmcv's unrounded boxes; an empty bin is 0 with argmax -1."""
    _check_shape('roi_pool', 'input', input, (None, None, None, None))
    _check_rois('roi_pool', rois, input.size(0))
    if not rois.size(0):
        return
    dtype = _compute_dtype('roi_pool', input=input, rois=rois)
    height, width = input.shape[2:]
    corners = rois.to(dtype)[:, 1:] + rois.new_tensor([0, 0, 1, 1], dtype=dtype)
    x1, y1, x2, y2 = (corners * spatial_scale).unbind(1)
    rows, real_rows = _roi_pool_bins(y1, y2, pooled_height, height)
    columns, real_columns = _roi_pool_bins(x1, x2, pooled_width, width)

    flat = input.flatten(2)
    # The gathered pixels of one slice of boxes stay below 2^24 numbers.
    per_box = input.size(1) * rows[0].numel() * columns[0].numel()
    for part in torch.arange(rois.size(0), device=rois.device).split(max(1, 2**24 // per_box)):
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
    dtype = _compute_dtype('roi_pool', grad_output=grad_output, rois=rois)
    batch_size, channels, height, width = grad_input.shape
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    target = plane[..., None] * (height * width) + argmax.flatten(2).clamp(min=0)
    grad = grad_output.to(dtype).masked_fill(argmax < 0, 0)
    total = grad.new_zeros(grad_input.numel()).index_add_(0, target.flatten(), grad.flatten())
    grad_input.copy_(total.view(batch_size, channels, height, width))


# ----------------------------------------------------------------------------------------------- deformable convolution
def _deform_conv(operator: str, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None,
                 bias: Tensor | None, geometry: tuple, groups: int, deform_groups: int,
                 grad_output: Tensor | None = None):
    """torchvision's deformable convolution, or its gradients (input, weight, offset, mask, bias)."""
    _check_shape(operator, 'input', input, (None, None, None, None))
    _check_shape(operator, 'weight', weight, (None, None, None, None))
    kernel_h, kernel_w = weight.shape[2:]
    taps = kernel_h * kernel_w
    if input.size(1) != weight.size(1) * groups or weight.size(0) % groups or input.size(1) % deform_groups:
        raise ValueError(f'{operator}: a weight of shape {tuple(weight.shape)} with groups={groups} and '
                         f'deform_groups={deform_groups} does not fit an input with {input.size(1)} channels')
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = geometry
    out_h = (input.size(2) + 2 * pad_h - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (input.size(3) + 2 * pad_w - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    _check_shape(operator, 'offset', offset, (input.size(0), 2 * deform_groups * taps, out_h, out_w))
    tensors = dict(input=input, weight=weight, offset=offset)
    if mask is not None:
        _check_shape(operator, 'mask', mask, (input.size(0), deform_groups * taps, out_h, out_w))
        tensors['mask'] = mask
    if bias is not None:
        _check_shape(operator, 'bias', bias, (weight.size(0), ))
        tensors['bias'] = bias
    dtype = _compute_dtype(operator, **tensors)
    use_mask = mask is not None
    mask = mask if use_mask else input.new_zeros(input.size(0), 1)
    bias = input.new_zeros(weight.size(0)) if bias is None else bias
    operands = [tensor.to(dtype) for tensor in (input, weight, offset, mask, bias)]
    settings = (*geometry, groups, deform_groups, use_mask)
    if grad_output is None:
        return torch.ops.torchvision.deform_conv2d(*operands, *settings)
    return torch.ops.torchvision._deform_conv2d_backward(grad_output.to(dtype), *operands, *settings)


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
                        group: int, deformable_group: int, im2col_step: int) -> None:
    """Deformable convolution (Dai et al., ICCV 2017). ``im2col_step`` has no meaning here."""
    output.copy_(_deform_conv('deform_conv', input, weight, offset, None, None,
                              (dH, dW, padH, padW, dilationH, dilationW), group, deformable_group))


def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int, dH: int,
                               padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:
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
    if columns.shape == gradWeight.shape:
        gradWeight.add_(columns, alpha=scale)
        columns.resize_(0)
        return
    grads = _deform_conv('deform_conv', input, gradWeight, offset, None, None,
                         (dH, dW, padH, padW, dilationH, dilationW), group, deformable_group, gradOutput)
    gradWeight.add_(grads[1].to(gradWeight), alpha=scale)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int,
                                  stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int,
                                  dilation_w: int, group: int, deformable_group: int, with_bias: bool) -> None:
    """Modulated deformable convolution (Zhu et al., CVPR 2019)."""
    output.copy_(_deform_conv('modulated_deform_conv', input, weight, offset, mask, bias if with_bias else None,
                              (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), group, deformable_group))


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
                                   dilation_h: int, dilation_w: int, group: int, deformable_group: int,
                                   with_bias: bool) -> None:
    grads = _deform_conv('modulated_deform_conv', input, weight, offset, mask, bias if with_bias else None,
                         (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), group, deformable_group,
                         grad_output)
    for target, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads[:4], strict=True):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


# ---------------------------------------------------------------------------------------------------------- focal loss
def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float):
    """The logit signed towards the true answer, and the factor of each entry, both (N, C)."""
    _check_shape('sigmoid_focal_loss', 'input', input, (None, None))
    _check_shape('sigmoid_focal_loss', 'target', target, (input.size(0), ))
    dtype = _compute_dtype('sigmoid_focal_loss', input=input)
    classes = input.size(1)
    positive = target[:, None] == torch.arange(classes, device=input.device)
    logit = input.to(dtype)
    factor = torch.full_like(logit, 1 - alpha).masked_fill(positive, alpha)
    if weight.numel():
        _check_shape('sigmoid_focal_loss', 'weight', weight, (classes, ))
        # A row that belongs to no class (background) has no entry in weight and counts once.
        labelled = (target >= 0) & (target < classes)
        factor = factor * weight.to(dtype)[target.clamp(0, classes - 1)].where(labelled, 1)[:, None]
    return torch.where(positive, logit, -logit), positive, factor


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Focal loss (Lin et al., ICCV 2017) of logits (N, C), entry by entry, into ``output``.

    A target from 0 to C - 1 is a class; any other value (C is mmdet's background) is negative for every class. An
    entry of ``weight`` (C, or empty) multiplies the rows of its class.
    """
    signed, _, factor = _focal_terms(input, target, weight, alpha)
    output.copy_(-factor * torch.sigmoid(-signed)**gamma * F.logsigmoid(signed))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    signed, positive, factor = _focal_terms(input, target, weight, alpha)
    miss = torch.sigmoid(-signed)
    slope = factor * miss**gamma * (gamma * torch.sigmoid(signed) * F.logsigmoid(signed) - miss)
    grad_input.copy_(torch.where(positive, slope, -slope))


# ---------------------------------------------------------------------------------- multi-scale deformable attention
def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., ICLR 2021), which mmcv calls here for CUDA tensors only."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    return multi_scale_deformable_attn_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
        output = ms_deform_attn_forward(inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:],
                                        im2col_step)
        grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)
