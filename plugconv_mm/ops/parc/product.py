"""The two steps of a call of ParC, which a layer takes apart: the kernel, and its product with a map."""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.ops.mechanisms.tracing import is_tracing
from plugconv_mm.ops.parc.backends import Backend, Geometry


@dataclass
class Plan:
    """Sizes, data types and backend of one call.

    Attributes:
        geometry: Axis and sizes.
        backend: Name of the backend.
        form: The backend.
        channels_last: Whether the map is channels-last in memory.
        out_dtype: Type of the output.
        compute_dtype: Type to compute in.
    """
    geometry: Geometry
    backend: str
    form: Backend
    channels_last: bool
    out_dtype: torch.dtype
    compute_dtype: torch.dtype


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
