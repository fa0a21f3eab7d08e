"""Timing side by side: every candidate in each round, so that a drifting machine hurts none of them more."""
import statistics
import time
from collections.abc import Callable

import torch

from plugconv_mm.analysis import interleave


def interleaved(candidates: dict[str, Callable[[], object]], seconds: float = 0.5, rounds: int = 5,
                device: str = 'cpu', warm_ups: int = 2) -> dict[str, float]:
    """Median time of a call of each candidate, in milliseconds.

    Args:
        candidates: What to call, by name.
        seconds: How long to go on, roughly.
        rounds: How many rounds there are at least.
        device: Device whose queue is emptied before the clock is read.
        warm_ups: Calls of each candidate before anything is timed.
    """
    def wait():
        if device == 'cuda':
            torch.cuda.synchronize()

    def clocked(call):
        wait()
        begin = time.perf_counter()
        call()
        wait()
        return time.perf_counter() - begin

    clocks = {name: lambda call=call: clocked(call) for name, call in candidates.items()}
    times = interleave.interleaved(clocks, rounds, seconds, warm_ups)
    return {name: 1e3 * statistics.median(t) for name, t in times.items()}
