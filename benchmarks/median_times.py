"""Median times of calls that are made in turns, so that a change of the machine's speed affects all of them alike."""
import statistics
import time
from collections.abc import Callable

import torch

from plugconv_mm.analysis.interleave import interleaved


def median_times(candidates: dict[str, Callable[[], object]], seconds: float = 0.5, rounds: int = 5,
                 device: str = 'cpu', warm_ups: int = 2) -> dict[str, float]:
    """Time a call of each candidate.

    Args:
        candidates: Functions to call, by name.
        seconds: The least time to continue for, roughly.
        rounds: The least number of rounds.
        device: The device that is synchronised before the clock is read.
        warm_ups: Calls of each candidate before anything is timed.

    Returns:
        Medians in milliseconds, by name.
    """
    def wait() -> None:
        if device == 'cuda':
            torch.cuda.synchronize()

    def clocked(call: Callable[[], object]) -> float:
        wait()
        begin = time.perf_counter()
        call()
        wait()
        return 1e3 * (time.perf_counter() - begin)

    times = interleaved({name: lambda call=call: clocked(call) for name, call in candidates.items()}, rounds, seconds,
                        warm_ups)
    return {name: statistics.median(t) for name, t in times.items()}
