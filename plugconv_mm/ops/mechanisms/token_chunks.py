"""Maps in chunks of positions, for layers that treat each position by itself.

In inference on a CPU the intermediate results of a chunk stay in the cache, in the same memory each time; those of a
whole map would go through main memory, in fresh pages each time.
"""
from collections.abc import Iterator

import torch
from torch import Tensor

from plugconv_mm.ops.mechanisms.tracing import is_tracing

_POSITIONS = 2048


def token_chunks_pay(x: Tensor) -> bool:
    """Whether chunks are faster: on a CPU, without gradients, and where no tracer records the pass."""
    return x.device.type == 'cpu' and not torch.is_grad_enabled() and not is_tracing()


def token_chunks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split maps (N, C, H, W) into tokens (L, C) of some thousand positions at a time.

    The tokens of a map that is channels-last in memory are views, which may be written to; those of others are copies.
    """
    return zip(*(m.permute(0, 2, 3, 1).flatten(0, 2).split(_POSITIONS) for m in maps), strict=True)
