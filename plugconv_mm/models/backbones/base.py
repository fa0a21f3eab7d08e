"""What backbones share: frozen stages, frozen batch norms, checked arguments, blocks that may be recomputed."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.utils.checkpoint as cp
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.ops import switch_to_deploy

# How a network of convolutions and batch norms starts from scratch.
KAIMING_INIT = [dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])]


class Backbone(BaseModule):
    """A stem and four stages, of which some return their features and the first may be frozen.

    A subclass names its modules in ``stage_modules`` and calls ``_freeze_stages`` once it is built.

    Args:
        out_indices (Sequence[int]): stages, from 0 and ascending, whose features are returned.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages: no gradients, and eval
            mode while the rest trains.
        norm_eval (bool): keep batch norms in eval mode while training.
        init_cfg (dict | list[dict], optional): how to initialise the weights.

    Raises:
        ValueError: ``out_indices`` or ``frozen_stages`` names a stage that is not there.
    """

    def __init__(self, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_cfg=init_cfg)
        indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
        if not indices or list(indices) != [i for i in range(4) if i in indices]:
            raise ValueError(f'out_indices must name stages 0 to 3, each once and ascending, got {out_indices}')
        if frozen_stages not in range(-1, 5):
            raise ValueError(f'frozen_stages must be between -1 and 4, got {frozen_stages}')
        self.out_indices = indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def stage_modules(self, stage: int) -> list[nn.Module]:
        """The modules of the stem (``stage=0``) or of a stage, counted from 1."""
        raise NotImplementedError

    def switch_to_deploy(self) -> None:
        """Fold what only training needs, for good; see :func:`plugconv_mm.ops.switch_to_deploy`.

        SLaK's large kernels become two convolutions each; all other backbones are in their final form as they are.
        """
        switch_to_deploy(self)

    def _freeze_stages(self) -> None:
        for stage in range(self.frozen_stages + 1):
            for module in self.stage_modules(stage):
                module.eval()
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'Backbone':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """`x` in the layout that passes from one convolution of a CPU to the next without being reordered."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == 'cpu' else x


class ResidualBlock(nn.Module):
    """A block with stochastic depth that may be recomputed in the backward pass to save memory.

    A subclass defines ``_forward``, in which residual branches pass through ``drop_path``.

    Args:
        drop_path (float): probability of dropping a residual branch.
        with_cp (bool): whether to keep the block's input alone and recompute the rest. Outputs, gradients and the
            statistics of batch norms are those of a block that is computed once.

    Raises:
        ValueError: a probability that is not in [0, 1).
    """

    def __init__(self, drop_path: float, with_cp: bool) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError('drop_path_rate must be at least 0 and below 1, but makes a block drop its branches at a '
                             f'rate of {drop_path:.3g}')
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.with_cp = with_cp

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if not (self.with_cp and x.requires_grad):
            return self._forward(x)
        if torch.compiler.is_compiling():  # the compiler sees to the statistics, and takes no contexts
            return cp.checkpoint(self._forward, x, use_reentrant=False)
        return cp.checkpoint(self._forward, x, use_reentrant=False,
                             context_fn=lambda: (nullcontext(), _statistics_kept(self)))


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training but do not count the batch, which they have seen before."""
    norms = [(m, m.momentum, m.num_batches_tracked) for m in module.modules() if isinstance(m, _BatchNorm)]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked = 0., None
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in norms:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


def look_up_arch(arch: str | dict, known: dict[str, dict]) -> dict:
    """The settings of an architecture given by name, or as a dict with the keys and stages of the known ones."""
    example = next(iter(known.values()))
    if isinstance(arch, dict):
        if set(arch) != set(example):
            raise ValueError(f'a dict as arch has the keys {", ".join(sorted(example))}; missing: '
                             f'{sorted(set(example) - set(arch))}, unknown: {sorted(set(arch) - set(example))}')
        check_per_stage(len(example['depths']), **arch)
        return arch
    if arch not in list(known):
        raise ValueError(f'unknown arch {arch!r}: give one of {", ".join(known)}, or a dict with the keys '
                         f'{", ".join(sorted(example))}')
    return known[arch]


def check_per_stage(num_stages: int, **settings: Sequence) -> None:
    """Raises a ValueError for a setting that does not give one value for each of `num_stages` stages."""
    for name, values in settings.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != num_stages:
            raise ValueError(f'{name} gives a value for each of {num_stages} stages, got {values!r}')


def drop_path_rates(last: float, num_blocks: int) -> list[float]:
    """The stochastic depth of each block: it grows linearly from 0 to that of the last."""
    return [last * i / max(num_blocks - 1, 1) for i in range(num_blocks)]


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, but not less than 90% of it."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded
