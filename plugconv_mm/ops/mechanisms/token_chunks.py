"""What treats each position by itself, a chunk of positions at a time.

In inference on a CPU the chunk's intermediate results stay in the cache and take the same memory again and again; of a
whole map they would go through memory, in fresh pages each time.
"""
from collections.abc import Iterator

import torch
from torch import Tensor

from plugconv_mm.ops.mechanisms.tracing import is_tracing

_POSITIONS = 2048


def token_chunks_pay(x: Tensor) -> bool:
    """Whether to go by chunks now: on a CPU, with no gradients to keep anything for and no tracer watching."""
    return x.device.type == 'cpu' and not torch.is_grad_enabled() and not is_tracing()


def token_chunks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The maps (N, C, H, W) as tokens (L, C) of a few positions at a time.

    They are views, to be written to as well, of a map that is channels-last in memory; of another they are copies.
    """
    return zip(*(m.permute(0, 2, 3, 1).flatten(0, 2).split(_POSITIONS) for m in maps), strict=True)
