"""Times of calls on a CPU or a GPU."""
import math
import time
from collections.abc import Callable, Mapping

import torch

# Two rounds in any case; then up to so many while they have taken less than so many milliseconds in all, so that slow
# calls are timed little and short ones often, as a moment of slowness outweighs them.
_ROUNDS = ((5, 500.), (20, 30.))
# A call that took so many times the fastest's time twice is timed no further.
_FAR_BEHIND = 3


def milliseconds(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Time of each call, the least of a few, in turns, so that a change of the machine's speed affects all alike.

    Each must have been called before, so that nothing is set up on the way.
    """
    times, spent, rounds = dict.fromkeys(calls, math.inf), 0., 0
    while rounds < 2 or any(rounds < most and spent < enough for most, enough in _ROUNDS):
        near = math.inf if rounds < 2 else _FAR_BEHIND * min(times.values())
        for name, call in calls.items():
            if times[name] <= near:
                taken = one_call(call, device)
                times[name] = min(times[name], taken)
                spent += taken
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
