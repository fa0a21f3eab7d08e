"""Masks of dynamic sparse training: numbers of active weights, growth and pruning, statistics, files.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
https://arxiv.org/abs/2207.03620; SNIP: https://arxiv.org/abs/1810.02340; Erdős–Rényi–Kernel densities and growth by
the gradient: https://arxiv.org/abs/1911.11134.
"""
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def _whole(shares: Sequence[float], total: int) -> list[int]:
    """Round shares to integers that sum to `total`; the largest remainders are rounded up."""
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[:total - sum(counts)]:
        counts[i] += 1
    return counts


def uniform_counts(shapes: Sequence[Sequence[int]], density: float) -> list[int]:
    """Active weights of each layer where every layer has the same density."""
    return [round(density * math.prod(shape)) for shape in shapes]


def erk_counts(shapes: Sequence[Sequence[int]], density: float) -> list[int]:
    """Active weights of each layer by Erdős–Rényi–Kernel densities, proportional to Σ shape / Π shape and at most 1.

    Weights that a layer capped at 1 cannot take go to the others, so that the network has the density asked for.

    Example:
        >>> erk_counts([(64, 3), (64, 64)], 0.5)  # 0.5 of both together; the small layer is the denser one
        [192, 1952]
    """
    sizes, sums = [math.prod(shape) for shape in shapes], [sum(shape) for shape in shapes]
    total = round(density * sum(sizes))
    capped: set[int] = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in capped]
        left = total - sum(sizes[i] for i in capped)
        scale = left / sum(sums[i] for i in rest) if rest else 0.
        over = {i for i in rest if scale * sums[i] > sizes[i]}
        if not over:
            return _whole([sizes[i] if i in capped else scale * sums[i] for i in range(len(shapes))], total)
        capped |= over


def snip_counts(scores: Sequence[Tensor], density: float) -> list[int]:
    """Active weights of each layer where those of the highest scores stay, compared over all layers.

    Args:
        scores: |weight · gradient| of each layer.
        density: Share of active weights.
    """
    flat = torch.cat([score.flatten() for score in scores])
    ends = torch.tensor([score.numel() for score in scores], device=flat.device).cumsum(0)
    best = flat.topk(round(density * flat.numel()), sorted=False).indices
    return torch.bincount(torch.bucketize(best, ends, right=True), minlength=len(scores)).tolist()


def random_mask(shape: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Draw a bool mask with `count` ones at random, on the generator's device."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool, device=generator.device)
    mask[torch.randperm(mask.numel(), generator=generator, device=generator.device)[:count]] = True
    return mask.view(tuple(shape))


def drop_and_grow(weight: Tensor, mask: Tensor, count: int, generator: torch.Generator | None = None,
                  gradient: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Drop the smallest active weights, then grow as many inactive ones.

    Args:
        weight: Weights of a layer.
        mask: Bool mask of the active weights.
        count: Number of weights to drop, and to grow.
        generator: Source of growth at random, on the device of the mask.
        gradient: Gradient of the weights, which grow where its magnitude is largest; at random without it.

    Returns:
        The mask of the weights that were not dropped, and the new mask, with as many ones as `mask`. A weight that was
        dropped may grow again and then starts at 0: the caller zeroes all weights outside the first of these masks.
    """
    weight, kept = weight.detach().flatten(), mask.flatten().clone()
    active = kept.nonzero()[:, 0]
    kept[active[weight[active].abs().topk(count, largest=False, sorted=False).indices]] = False
    inactive = (~kept).nonzero()[:, 0]
    if gradient is None:
        grown = torch.randperm(len(inactive), generator=generator, device=kept.device)[:count]
    else:
        grown = gradient.flatten()[inactive].abs().topk(count, sorted=False).indices
    new = kept.clone()
    new[inactive[grown]] = True
    return kept.view_as(mask), new.view_as(mask)


def cosine_prune_rate(step: int, total: int, start: float, end: float = 0.005) -> float:
    """Share of a layer's active weights that an update replaces: from `start` at step 0 to `end` at step `total`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(step / total, 1))) / 2


def layer_group(name: str) -> str:
    """Name the group of a parameter: its stage and its kind.

    Example:
        >>> layer_group('backbone.stages.2.5.large_kernel.vertical.conv.weight')
        'backbone.stages.2.large_kernel'
    """
    parts = name.split('.')[:-1]
    number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    kind = next((part for part in parts[number:] if not part.isdigit()), None)
    return '.'.join(parts[:number + 1] + ([kind] if kind else []))


def mask_statistics(masks: Mapping[str, Tensor], first: Mapping[str, Tensor],
                    before: Mapping[str, Tensor]) -> dict[str, float]:
    """Compute figures of masks for every group of layers, and for ``all``.

    Args:
        masks: Present bool masks by the names of the parameters.
        first: Masks at the start of training.
        before: Masks before the last update.

    Returns:
        ``density/GROUP``, the share of active weights; ``turnover/GROUP``, the share of the active weights that the
        last update grew; and ``first_mask_overlap/GROUP``, the share of the active weights that the first mask had.
    """
    counts = torch.stack([torch.stack([mask.sum(), (mask & ~before[name]).sum(), (mask & first[name]).sum()])
                          for name, mask in masks.items()]).cpu()  # one wait for the device
    sums = defaultdict(lambda: torch.zeros(4, dtype=torch.long))
    for (name, mask), count in zip(masks.items(), counts, strict=True):
        for group in (layer_group(name), 'all'):
            sums[group] += torch.cat([torch.tensor([mask.numel()]), count])
    figures = {}
    for group, count in sums.items():
        size, active, new, common = count.tolist()
        figures |= {f'density/{group}': active / size, f'turnover/{group}': new / max(active, 1),
                    f'first_mask_overlap/{group}': common / max(active, 1)}
    return figures


def pack_mask(mask: Tensor) -> Tensor:
    """Pack a bool mask into bits, eight in a byte, for files."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_mask(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpack the mask that :func:`pack_mask` packed, on the CPU.

    Raises:
        ValueError: If `packed` is not the mask of a tensor of this shape.
    """
    count = math.prod(shape)
    if packed.numel() != -(-count // 8):
        raise ValueError(f'a packed mask of {packed.numel()} bytes does not fit the shape {tuple(shape)}')
    return torch.from_numpy(np.unpackbits(packed.cpu().numpy(), count=count)).bool().view(tuple(shape))
