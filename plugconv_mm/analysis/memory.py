"""The peak memory of tensors."""
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler reports machines without a GPU as an error


@dataclass
class Allocated:
    """Bytes allocated since the start of :func:`watched`.

    Attributes:
        peak: The most at once.
        left: Those still allocated at the end.
    """
    peak: int = 0
    left: int = 0


@contextmanager
def watched(device: str = 'cpu') -> Iterator[Allocated]:
    """Record the memory that PyTorch allocates in a block; the result is complete at its end.

    On a CPU, PyTorch's profiler counts tensors and the buffers of PyTorch's operators, but not those of libraries such
    as oneDNN and MKL. On a GPU, all memory from PyTorch's allocator is counted.

    Args:
        device: ``'cpu'`` or a CUDA device.

    Example:
        >>> with watched() as memory:
        ...     x = torch.empty(1000)
        ...     y = x + 1
        ...     del x
        >>> memory.peak // 1000, memory.left // 1000
        (8, 4)
    """
    found = Allocated()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        torch.cuda.synchronize(device)
        found.peak = torch.cuda.max_memory_allocated(device) - before
        found.left = torch.cuda.memory_allocated(device) - before
        return
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*Profiler clears events')
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            yield found
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == '[memory]']
    for event in sorted(events, key=lambda e: e.start_ns() if hasattr(e, 'start_ns') else e.start_us()):
        found.left += event.nbytes()
        found.peak = max(found.peak, found.left)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
