"""Measurements in turns, so that a change of the machine's speed affects all candidates alike."""
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')


def interleaved(candidates: dict[str, Callable[[], T]], rounds: int, seconds: float = 0, warm_ups: int = 2,
                after_round: Callable[[], object] | None = None) -> dict[str, list[T]]:
    """Call every candidate once in each round, in an order drawn anew.

    Args:
        candidates: What to call, by name. Each measures itself.
        rounds: The least number of rounds.
        seconds: The least time to continue for, roughly, up to 200 rounds.
        warm_ups: Calls of each candidate before the first round.
        after_round: Called after each round, for example to show progress.

    Returns:
        The results of each candidate, one a round, by name.

    Example:
        >>> interleaved({'one': lambda: 1, 'two': lambda: 2}, rounds=3)
        {'one': [1, 1, 1], 'two': [2, 2, 2]}
    """
    for call in candidates.values():
        for _ in range(warm_ups):
            call()
    results = {name: [] for name in candidates}
    # The order is drawn anew for each round, as a call finds the caches and the freed memory of the one before it.
    order, shuffle = list(candidates), random.Random(0).shuffle
    start, done = time.perf_counter(), 0
    while done < rounds or (time.perf_counter() - start < seconds and done < 200):
        shuffle(order)
        for name in order:
            results[name].append(candidates[name]())
        done += 1
        if after_round is not None:
            after_round()
    return results
