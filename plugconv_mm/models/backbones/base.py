"""What backbones share: frozen stages, frozen batch norms, checked arguments."""
from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.ops import switch_to_deploy


class Backbone(BaseModule):
    """A stem and stages, of which some return their features and the first may be frozen.

    A subclass names its modules in ``stage_modules`` and calls ``_freeze_stages`` once it is built.

    Args:
        num_stages (int): number of stages.
        out_indices (Sequence[int]): stages, from 0, whose features are returned.
        frozen_stages (int): -1 freezes nothing, 0 the stem, i the stem and the first i stages: no gradients, and eval
            mode while the rest trains.
        norm_eval (bool): keep batch norms in eval mode while training.
        init_cfg (dict | list[dict], optional): how to initialise the weights.

    Raises:
        ValueError: ``out_indices`` or ``frozen_stages`` names a stage that is not there.
    """

    def __init__(self, num_stages: int, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_cfg=init_cfg)
        if not out_indices or any(i not in range(num_stages) for i in out_indices):
            raise ValueError(f'out_indices must name stages 0 to {num_stages - 1}, got {tuple(out_indices)}')
        if frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(f'frozen_stages must be between -1 and {num_stages}, got {frozen_stages}')
        self.out_indices = tuple(out_indices)
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


def look_up_arch(arch: str | dict, known: dict[str, dict]) -> dict:
    """The settings of an architecture given by name or as a dict with all the keys of the known ones."""
    if isinstance(arch, str):
        if arch not in known:
            raise ValueError(f'unknown arch {arch!r}: give one of {", ".join(known)}, or a dict')
        return known[arch]
    keys = set(next(iter(known.values())))
    if set(arch) != keys:
        raise ValueError(f'a dict as arch has the keys {", ".join(sorted(keys))}; missing: '
                         f'{sorted(keys - set(arch))}, unknown: {sorted(set(arch) - keys)}')
    return arch
