"""Times of calls on a CPU or a GPU."""
import math
import time
from collections.abc import Callable, Mapping

import torch

_ROUNDS = 5
# No more rounds than two once so many milliseconds are spent.
_ENOUGH = 500
# A call that took so many times the fastest's time twice is timed no further.
_FAR_BEHIND = 3


def milliseconds(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Time of each call, the least of a few, in turns, so that a change of the machine's speed affects all alike.

    Each must have been called before, so that nothing is set up on the way.
    """
    times = {name: one_call(call, device) for name, call in calls.items()}
    rounds = 1
    while rounds < 2 or (rounds < _ROUNDS and rounds * sum(times.values()) < _ENOUGH):
        near = math.inf if rounds < 2 else _FAR_BEHIND * min(times.values())
        for name, call in calls.items():
            if times[name] <= near:
                times[name] = min(times[name], one_call(call, device))
        rounds += 1
    return times


def one_call(call: Callable[[], object], device: torch.device) -> float:
    """Time one call in milliseconds, on a GPU between two events of its stream."""
    if device.type == 'cuda':
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            return start.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)
