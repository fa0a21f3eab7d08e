"""What a ParC costs in each of its forms, and which form is the cheapest."""
from dataclasses import dataclass

import torch

BACKENDS = ('spatial', 'fft', 'gemm')


@dataclass(frozen=True)
class Workload:
    """One call of ParC: sizes, layout, device and data type."""
    batch: int
    channels: int
    groups: int
    length: int
    other: int
    along_h: bool
    channels_last: bool
    device: str
    dtype: torch.dtype
    training: bool


def cheapest_backend(w: Workload) -> str:
    return 'spatial' if w.length < 28 else 'fft'
