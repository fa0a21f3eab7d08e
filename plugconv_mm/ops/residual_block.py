"""Residual blocks with stochastic depth, which may be recomputed in the backward pass."""
from contextlib import nullcontext
from typing import cast

import torch
import torch.utils.checkpoint as cp
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class ResidualBlock(nn.Module):
    """A block with stochastic depth that may be recomputed in the backward pass to save memory.

    A subclass defines ``_forward``, in which residual branches pass through ``drop_path``.

    Args:
        drop_path: Probability of dropping a residual branch.
        with_cp: Whether to keep the block's input alone and recompute the rest. Outputs, gradients and buffers, such as
            the statistics of any norm, are those of a block that is computed once.

    Raises:
        ValueError: A probability that is not in [0, 1).
    """

    def __init__(self, drop_path: float, with_cp: bool) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError('drop_path_rate must be at least 0 and below 1, but makes a block drop its branches at a '
                             f'rate of {drop_path:.3g}')
        self.drop_path = StochasticDepth(drop_path, 'row') if drop_path else nn.Identity()
        self.with_cp = with_cp

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if not (self.with_cp and x.requires_grad):
            return self._forward(x)
        if torch.compiler.is_compiling():  # the compiler recomputes values and no changes of buffers, without contexts
            return cast(Tensor, cp.checkpoint(self._forward, x, use_reentrant=False))
        return cast(Tensor, cp.checkpoint(self._forward, x, use_reentrant=False,
                                          context_fn=lambda: (nullcontext(), _EarlierBuffers(self))))


class _EarlierBuffers:
    """Context in which a module computes with its buffers as they were when the context was made.

    A recomputation starts where the first computation did, and what it does to the statistics of norms is dropped:
    they have counted the batch before. Buffers are exchanged, not overwritten, because the backward pass may have been
    handed the present ones. One context serves several backward passes through one graph.
    """

    def __init__(self, module: nn.Module) -> None:
        self.earlier = [(m, name, buffer.clone()) for m in module.modules()
                        for name, buffer in m.named_buffers(recurse=False)]
        self.present: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        self.present = [(module, name, getattr(module, name)) for module, name, _ in self.earlier]
        for module, name, buffer in self.earlier:
            setattr(module, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for module, name, buffer in self.present:
            setattr(module, name, buffer)
        self.present = []


def drop_path_rates(last: float, num_blocks: int) -> list[float]:
    """Space the stochastic depths of all blocks evenly, from 0 to that of the last."""
    return [last * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
