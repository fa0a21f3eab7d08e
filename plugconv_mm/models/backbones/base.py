"""The frame of every backbone: which stages are returned, which are frozen, and which norms keep their statistics."""
from collections.abc import Sequence
from typing import Any, ClassVar

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.ops import switch_to_deploy


class Backbone(BaseModule):
    """A stem and four stages, of which some return their features and the first may be frozen.

    A subclass makes its modules in its constructor and then calls ``_freeze_stages``; it defines ``stage_modules`` and
    ``_stem``, and overrides ``_stage`` and ``_output`` where a stage is more than its modules one after the other.

    Args:
        out_indices: Stages, from 0 and ascending, whose features are returned.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages: no gradients, and eval mode
            while the rest trains.
        norm_eval: Whether batch norms stay in eval mode while training.
        init_cfg: Initialisation of the weights; by default ``default_init_cfg``.

    Shapes:
        (N, in_channels, H, W) -> tuple of one map (N, C_i, H_i, W_i) for each of ``out_indices``, at strides 4, 8, 16
        and 32 unless a subclass was given other ones.

    Raises:
        ValueError: ``out_indices`` or ``frozen_stages`` names a stage that is not there.
    """

    default_init_cfg: ClassVar[dict[str, Any] | list[dict[str, Any]]] = [
        dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm'])]

    arch_settings: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_cfg=init_cfg or self.default_init_cfg)
        indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
        if not indices or list(indices) != [i for i in range(4) if i in indices]:
            raise ValueError(f'out_indices must name stages 0 to 3, each once and ascending, got {out_indices}')
        if frozen_stages not in range(-1, 5):
            raise ValueError(f'frozen_stages must be between -1 and 4, got {frozen_stages}')
        self.out_indices = indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    @classmethod
    def sizes(cls) -> list[dict[str, Any]]:
        """List the arguments that make the sizes in which the network is published."""
        return [dict(arch=arch) for arch in cls.arch_settings]

    def stage_modules(self, stage: int) -> list[nn.Module]:
        """List the modules of the stem (``stage=0``) or of a stage, counted from 1, in the order of their use."""
        raise NotImplementedError

    def _stem(self, x: Tensor) -> Tensor:
        """Map images to the input of stage 1."""
        raise NotImplementedError

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        """Run a stage, counted from 1."""
        for module in self.stage_modules(stage):
            x = module(x)
        return x

    def _output(self, stage: int, x: Tensor) -> Tensor:
        """Make the features to return of what a stage, counted from 1, gave."""
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self._stem(x)
        outputs = []
        for i in range(max(self.out_indices) + 1):
            x = self._stage(i + 1, x)
            if i in self.out_indices:
                outputs.append(self._output(i + 1, x))
        return tuple(outputs)

    def switch_to_deploy(self) -> None:
        """Fold what only training needs, for good; see :func:`plugconv_mm.ops.switch_to_deploy`.

        Large kernels, such as SLaK's, become two convolutions each, or one where they are whole; all else is in its
        final form as it is.
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
