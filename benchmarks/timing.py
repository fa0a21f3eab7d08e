"""Timing side by side: every candidate in each round, so that a drifting machine hurts none of them more."""
import random
import statistics
import time
from collections.abc import Callable

import torch


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

    for call in candidates.values():
        for _ in range(warm_ups):
            call()
    times = {name: [] for name in candidates}
    # In an order drawn anew for each round: a call finds the caches and the freed memory of the one before it.
    order, shuffle = list(candidates), random.Random(0).shuffle
    start, done = time.perf_counter(), 0
    while done < rounds or (time.perf_counter() - start < seconds and done < 200):
        shuffle(order)
        for name in order:
            wait()
            begin = time.perf_counter()
            candidates[name]()
            wait()
            times[name].append(time.perf_counter() - begin)
        done += 1
    return {name: 1e3 * statistics.median(t) for name, t in times.items()}
