"""A model of ParC's time in each of its backends, and the choice of the fastest.

A call is taken to cost ``call + M · (move + work · units)`` milliseconds for M million map elements, where the units
are the multiplications an element takes part in: N · C / groups in the convolution and the circulant product, log2 N in
the transform. The constants were fitted to times of some 230 shapes, both directions, two layouts, inference and
training, measured side by side with two threads of a server CPU; ``python -m benchmarks.parc_backends`` shows how near
the choice comes to the best backend on another machine. Only the order of the times matters, not the times themselves.
"""
import functools
import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Workload:
    """One call of ParC: `length` is the map's side along the kernel, `other` the other side."""
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


@dataclass(frozen=True)
class BackendCost:
    """Constants of one backend, in milliseconds, milliseconds for a million elements, or factors.

    Attributes:
        call: Of any call.
        move: For reading and writing the map; `move_h` more along H, `move_cl` more in channels_last, `copies` more for
            each image's own copy of the kernels in a batch.
        work: For a unit of work; times `work_h` along H, times `work_cl` in channels_last.
        transform: Whether the units are log2 N rather than N · C / groups.
        prime: How much more a transform costs whose length has a prime factor beyond 13.
        mix: Units for the complex product over a group's channels, for each of its channels.
        half, double: Factors of the 16-bit types and float64.
        train_call, train, train_w: Factors of forward and backward: of `call`, of the rest, of the rest along W.
        prepare: In training, for a million elements of the kernel in the backend's form.
        circulant: Whether that form has N² elements for each kernel rather than N.
    """
    call: float
    move: float
    work: float
    move_h: float = 0
    move_cl: float = 0
    copies: float = 0
    work_h: float = 1
    work_cl: float = 1
    transform: bool = False
    prime: float = 0
    mix: float = 0
    half: float = 1
    double: float = 1
    train_call: float = 1
    train: float = 3
    train_w: float = 1
    prepare: float = 0
    circulant: bool = False


CPU = {
    'depthwise': {
        'spatial': BackendCost(call=0.22, move=0, work=0.053, work_h=2.3, work_cl=0.7, half=0.92, double=5,
                               train_call=10, train=3, train_w=8.2),
        'fft': BackendCost(call=0.45, move=0.28, work=0.22, move_h=1.35, move_cl=1.6, prime=5.4, half=1.75,
                           train_call=5.4, train=4.5, transform=True),
        'gemm': BackendCost(call=0.15, move=0.2, work=0.02, move_h=0.76, move_cl=6, copies=0.31, work_h=0.6,
                            half=0.84, train_call=8, train=3.9, train_w=1.7, prepare=2, circulant=True),
    },
    'dense': {
        'spatial': BackendCost(call=0.34, move=10, work=0.0126, work_h=0.93, work_cl=0.8, half=0.41, double=5,
                               train_call=22, train=2.8, train_w=1.35),
        'fft': BackendCost(call=1.1, move=0.21, work=0.46, move_h=0.93, move_cl=5.9, prime=3, mix=0.14,
                           train_call=0.5, train=5.1, prepare=5.4, transform=True),
        'gemm': BackendCost(call=0.92, move=0, work=0.04, move_cl=1.4, work_h=0.52, half=1.14, train_call=27, train=1,
                            prepare=20, circulant=True),
    },
}
# Estimates from counted launches, bytes and operations: no GPU was at hand to measure them on.
CUDA = {
    'depthwise': {
        'spatial': BackendCost(call=0.03, move=0.02, work=0.002),
        'fft': BackendCost(call=0.08, move=0.03, work=0.003, move_h=0.01, move_cl=0.01, prime=2, half=1.3,
                           transform=True),
        'gemm': BackendCost(call=0.03, move=0.012, work=1e-4, move_cl=0.01, copies=0.01, half=0.4, prepare=0.03,
                            circulant=True),
    },
    'dense': {
        'spatial': BackendCost(call=0.04, move=0.02, work=1e-4, half=0.3),
        'fft': BackendCost(call=0.12, move=0.05, work=0.003, move_h=0.01, mix=0.07, prime=2, half=1.3, prepare=0.05,
                           transform=True),
        'gemm': BackendCost(call=0.04, move=0.02, work=1e-4, half=0.3, prepare=0.05, circulant=True),
    },
}


def cheapest_backend(workload: Workload) -> str:
    """The name of the backend that is expected to take the least time."""
    # torch.compile asks once, and warns of caches that it looks through.
    times = _times(workload) if torch.compiler.is_compiling() else expected_times(workload)
    return min(times, key=times.__getitem__)


def _times(workload: Workload) -> dict[str, float]:
    """The time that each backend is expected to take, in milliseconds."""
    kind = 'depthwise' if workload.groups == workload.channels else 'dense'
    table = (CPU if workload.device == 'cpu' else CUDA)[kind]
    return {backend: milliseconds(workload, cost) for backend, cost in table.items()}


expected_times = functools.lru_cache(4096)(_times)


def milliseconds(w: Workload, cost: BackendCost) -> float:
    """The expected time of one call, forward and backward if it is a call in training."""
    width, n = w.channels // w.groups, w.length
    move = cost.move + cost.move_h * w.along_h + cost.move_cl * w.channels_last
    if w.batch > 1:
        move += cost.copies * n / w.other
    if cost.transform:
        units = math.log2(n) * (1 + cost.prime * _has_large_prime_factor(n)) if n > 1 else 0
        units += cost.mix * width
    else:
        units = n * width * (cost.work_h if w.along_h else 1) * (cost.work_cl if w.channels_last else 1)
    call, rest = cost.call, w.batch * w.channels * n * w.other / 1e6 * (move + cost.work * units)
    if w.training:
        kernel = w.channels * width * n * (n if cost.circulant else 1) / 1e6
        call *= cost.train_call
        rest = rest * cost.train * (1 if w.along_h else cost.train_w) + cost.prepare * kernel
    if w.dtype in (torch.float16, torch.bfloat16):
        rest *= cost.half
    elif w.dtype == torch.float64:
        rest *= cost.double
    return call + rest


def _has_large_prime_factor(n: int) -> bool:
    """Whether `n` has a prime factor beyond 13."""
    for p in (2, 3, 5, 7, 11, 13):
        while n % p == 0:
            n //= p
    return n > 1
