"""ParC as a function, and the steps that a layer takes apart: the plan, the kernel, and its product with a map."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.ops.mechanisms.tracing import is_tracing
from plugconv_mm.ops.mechanisms.tuning import fastest, may_answer
from plugconv_mm.ops.parc.backends import BACKENDS, Geometry
from plugconv_mm.ops.parc.cost import expected_times
from plugconv_mm.ops.parc.plan import Plan, make_plan


def parc_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, position_embedding: Tensor | None = None,
                backend: str = 'auto') -> Tensor:
    """Position-aware circular convolution of `x` with a global one-dimensional kernel.

    The shape of `weight` tells the axis and the groups. Kernel and embedding are stretched to the map's length N
    along that axis (bilinear, ``align_corners=True``).

    Args:
        x: (B, C, H, W), floating point.
        weight: (C, C / groups, K, 1) for a convolution along H, (C, C / groups, 1, K) along W, K >= 2; groups = C is
            depthwise, groups = 1 dense.
        bias: (C,) or None.
        position_embedding: (1, C, K, 1) or (1, C, 1, K), as `weight` lies, or None.
        backend: ``'spatial'``, O(N²) a line; ``'fft'``, O(N log N), in float32 or float64 whatever the input;
            ``'gemm'``, O(N²) on matrix units; ``'auto'``, the one expected to be the fastest, or measured to be
            (:func:`autotune`).

    Returns:
        (B, C, H, W), in the memory format of `x`; under autocast in autocast's type, otherwise in that of `x`.

    Raises:
        TypeError: Not tensors, an integer or complex input, or data types that differ outside autocast.
        ValueError: Shapes or devices that do not fit, an unknown backend.

    Example:
        >>> x = torch.randn(2, 6, 20, 30)
        >>> weight, pe = torch.randn(6, 1, 14, 1), torch.randn(1, 6, 14, 1)      # depthwise, along H
        >>> y = parc_conv2d(x, weight, position_embedding=pe)
        >>> y.shape
        torch.Size([2, 6, 20, 30])
        >>> torch.allclose(y, parc_conv2d(x, weight, position_embedding=pe, backend='fft'), atol=1e-4)
        True
    """
    axis = check(x, weight, bias, position_embedding)
    plan = choose_plan(x, (weight, bias, position_embedding), axis, backend)
    kernel, offset = prepare(plan, weight, bias, position_embedding)
    return apply(plan, x, kernel, offset)


def check(x: Tensor, weight: Tensor, bias: Tensor | None, position_embedding: Tensor | None) -> int:
    """The dimension of the map that the kernel runs along, 2 or 3.

    Raises:
        TypeError: Not tensors, an integer or complex type, or types that differ.
        ValueError: Shapes or devices that do not fit.
    """
    named = {'x': x, 'weight': weight, 'bias': bias, 'position_embedding': position_embedding}
    for name, t in named.items():
        if t is None and name in ('bias', 'position_embedding'):
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f'{name} must be a tensor, got {type(t).__name__}')
        if not t.is_floating_point():
            raise TypeError(f'{name} must be of a floating-point type, got {t.dtype}; convert it, for example with '
                            '.float()')
        if t.device != x.device:
            raise ValueError(f'{name} is on {t.device} and x on {x.device}: move both to one device')
        if name != 'x' and t.dtype != weight.dtype:
            raise TypeError(f'{name} is {t.dtype} and weight {weight.dtype}: they must be of one type')
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError('x must be a map with at least one channel and one position, of shape (B, C, H, W), got '
                         f'{tuple(x.shape)}')
    channels = x.shape[1]
    if weight.dim() != 4 or 1 not in weight.shape[2:] or max(weight.shape[2:]) < 2:
        raise ValueError('weight must have the shape (C, C / groups, K, 1) for a convolution along H or '
                         f'(C, C / groups, 1, K) along W, with K of at least 2; got {tuple(weight.shape)}')
    if weight.shape[0] != channels or channels % weight.shape[1]:
        raise ValueError(f'x has {channels} channels, so weight must have the shape ({channels}, {channels} / groups, '
                         f'...) with groups a divisor of {channels}; got {tuple(weight.shape)}')
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f'bias must have the shape ({channels},), got {tuple(bias.shape)}')
    axis = 3 if weight.shape[2] == 1 else 2
    if position_embedding is not None:
        expected = (1, channels, *weight.shape[2:])
        if position_embedding.shape != expected:
            raise ValueError(f'position_embedding must have the shape {expected}, got '
                             f'{tuple(position_embedding.shape)}')
    return axis


def choose_plan(x: Tensor, parameters: tuple[Tensor, Tensor | None, Tensor | None], axis: int, backend: str,
                kernel_kept: bool = False) -> Plan:
    """The plan of a call; the backend of ``'auto'`` is the measured one where there is one.

    Args:
        x: The map.
        parameters: Weight, bias and position embedding.
        axis: Dimension of the map that the kernel runs along.
        backend: Name of a backend, or ``'auto'``.
        kernel_kept: Whether the call takes the kernel from a cache, so that its preparation takes no time.
    """
    plan = make_plan(x, parameters[0], axis, backend)
    if plan.workload is None or not may_answer():
        return plan

    def form(name: str) -> Callable[..., Tensor]:
        kept = []

        def call(x: Tensor, weight: Tensor, bias: Tensor | None, position_embedding: Tensor | None) -> Tensor:
            plan = make_plan(x, weight, axis, name)
            if not kept or not kernel_kept:
                kept[:] = prepare(plan, weight, bias, position_embedding)
            return apply(plan, x, *kept)
        return call

    w = plan.workload
    measured = fastest('parc', (w, 'kernel kept' if kernel_kept else 'kernel made'), {b: form(b) for b in BACKENDS},
                       (x, *parameters), w.training, expected_times(w))
    return plan if measured is None else make_plan(x, parameters[0], axis, measured)


def prepare(plan: Plan, weight: Tensor, bias: Tensor | None,
            position_embedding: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The kernel in the backend's form, and the sum that bias and embedding add to each output position, or None.

    Both depend on the parameters and the map's size alone. The operator is linear, so the embedding's share is the
    convolution of the embedding itself, and the map need not be read once more to add it. It is shaped to broadcast.
    """
    geometry, dtype = plan.geometry, plan.compute_dtype
    kernel = plan.form.prepare(_stretch(weight, geometry), geometry, dtype)
    offset = None
    if position_embedding is not None:
        pe = _stretch(position_embedding, geometry).unsqueeze(2 if geometry.axis == 3 else 3)
        offset = plan.form.apply(pe.to(dtype), kernel, geometry)
    if bias is not None:
        b = bias.view(1, -1, 1, 1)
        offset = b if offset is None else offset + b
    return kernel, None if offset is None else offset.to(plan.out_dtype)


def _stretch(t: Tensor, geometry: Geometry) -> Tensor:
    """(A, B, K, 1) or (A, B, 1, K) to the map's length, in float32 at least, as (A, B, N)."""
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    size = (geometry.length, 1) if geometry.axis == 2 else (1, geometry.length)
    if t.shape[2:] != size:
        t = F.interpolate(t, size=size, mode='bilinear', align_corners=True)
    return t.reshape(*t.shape[:2], geometry.length)


def apply(plan: Plan, x: Tensor, kernel: Tensor, offset: Tensor | None) -> Tensor:
    """The product of a map (B, C, H, W) with what :func:`prepare` gave, in the map's memory format."""
    memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
    plain = torch.is_grad_enabled() or is_tracing()
    if not plain and not plan.channels_last:
        step = plan.form.channels_at_once(x, plan.geometry)
        if step < x.shape[1]:
            return _apply_in_chunks(plan, x, kernel, offset, step)
    y = plan.form.apply(x.to(plan.compute_dtype), kernel, plan.geometry).to(plan.out_dtype)
    if offset is None:
        return y.contiguous(memory_format=memory_format)
    if plain or y.is_contiguous(memory_format=memory_format):
        return y.add_(offset).contiguous(memory_format=memory_format)
    # One pass that adds and puts the axes back in order.
    return torch.add(y, offset, out=torch.empty(y.shape, dtype=y.dtype, device=y.device, memory_format=memory_format))


def _apply_in_chunks(plan: Plan, x: Tensor, kernel: Tensor, offset: Tensor | None, step: int) -> Tensor:
    """The product of a depthwise kernel, `step` channels at a time."""
    out = torch.empty(x.shape, dtype=plan.out_dtype, device=x.device)
    for start in range(0, x.shape[1], step):
        part = slice(start, start + step)
        y = plan.form.apply(x[:, part].to(plan.compute_dtype), kernel[part], plan.geometry)
        if offset is None:
            out[:, part] = y
        else:
            torch.add(y, offset[:, part], out=out[:, part])
    return out
