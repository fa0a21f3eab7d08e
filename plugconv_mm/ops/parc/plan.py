"""The plan of one call of ParC: sizes, data types and backend."""
from dataclasses import dataclass

import torch
from torch import Tensor

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.tracing import is_exporting, side
from plugconv_mm.ops.parc.backends import BACKENDS, EXPORT_BACKENDS, Backend, Geometry
from plugconv_mm.ops.parc.cost import Workload, cheapest_backend


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
        workload: What the cost model chose the backend for; None where it was given.
    """
    geometry: Geometry
    backend: str
    form: Backend
    channels_last: bool
    out_dtype: torch.dtype
    compute_dtype: torch.dtype
    workload: Workload | None = None


def make_plan(x: Tensor, weight: Tensor, axis: int, backend: str) -> Plan:
    """Plan a call.

    Args:
        x: The map (B, C, H, W).
        weight: (C, C / groups, K, 1) or (C, C / groups, 1, K).
        axis: Dimension of the map that the kernel runs along.
        backend: Name of a backend, or ``'auto'``.

    Raises:
        TypeError: If the data types of map and weight differ outside autocast.
        ValueError: If the backend is unknown.
    """
    check_backend(backend)
    channels, width = weight.shape[:2]
    geometry = Geometry(axis, side(x, axis), channels // width, width)
    channels_last = channels > 1 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    out_dtype = x.dtype
    autocast = autocast_dtype(x)
    if x.dtype != torch.float64 and autocast is not None:
        out_dtype = autocast
    elif weight.dtype != x.dtype:
        raise TypeError(f'the input is {x.dtype} and the weight {weight.dtype}: convert one of them, or run under '
                        'torch.autocast')
    workload = None
    if backend in ('auto', 'fft') and is_exporting():
        # No complex numbers there: a circulant for each channel, or, where channels mix, the transform as a matrix.
        backend = 'gemm' if width == 1 else 'dft'
    elif not x.shape[0]:
        backend = 'spatial'  # FFTs take no empty batches
    elif backend == 'auto':
        workload = Workload(
            batch=x.shape[0], channels=channels, groups=geometry.groups, length=geometry.length,
            other=x.shape[5 - axis], along_h=axis == 2, channels_last=channels_last, device=x.device.type,
            dtype=out_dtype,
            training=torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        backend = cheapest_backend(workload)
    form = EXPORT_BACKENDS['dft'] if backend == 'dft' else BACKENDS[backend]
    return Plan(geometry, backend, form, channels_last, out_dtype, form.compute_dtype(out_dtype), workload)


def check_backend(backend: str) -> None:
    """Raises a ValueError where no backend has this name."""
    if backend not in (*BACKENDS, 'auto'):
        raise ValueError(f"unknown backend {backend!r}, expected one of {', '.join(map(repr, (*BACKENDS, 'auto')))}")
