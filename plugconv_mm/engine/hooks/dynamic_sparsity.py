"""Dynamic sparse training, as for SLaK, and fine-tuning that keeps a sparse network sparse.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
https://arxiv.org/abs/2207.03620.
"""
import copy
import math

import torch
from mmengine.dist import all_reduce, broadcast
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from plugconv_mm.errors import CheckpointError, ConfigError, NonFiniteError, UnsupportedConfigError
from plugconv_mm.ops import DecomposedLargeKernelConv2d, LargeKernelConv2d
from plugconv_mm.ops.sparse_masks import (
    cosine_prune_rate,
    drop_and_grow,
    erk_counts,
    mask_statistics,
    pack_mask,
    random_mask,
    snip_counts,
    uniform_counts,
    unpack_mask,
)
from plugconv_mm.plugging.plugged import Beside
from plugconv_mm.registry import HOOKS

_KEY = 'dynamic_sparsity'  # in the checkpoint


@HOOKS.register_module()
class DynamicSparsityHook(Hook):
    """Dynamic sparse training: a fixed number of weights is zero, and their positions change during training.

    Every trained parameter of 2 or 4 dimensions has a mask. Where it is 0, the weight, the optimizer's moments and the
    averaged weight (``EMAHook``) are zero. Every ``update_frequency`` steps of the optimizer, each layer drops the part
    of its active weights that is smallest in magnitude (``prune_rate``, which decays to 0.005 over the run like a
    cosine) and grows as many inactive ones, which start at 0. The number of active weights of a layer is constant; a
    layer whose density would be 0.99 or more stays dense.

    The current and the first masks are in the checkpoint under ``dynamic_sparsity``, apart from the state dict, which
    therefore loads into a dense model. A resumed run continues with them. All processes have the same masks.

    Each update is logged for every group of layers and for ``all``: ``density``, ``turnover`` (the part of the active
    weights that was inactive before) and ``first_mask_overlap`` (the part of the first mask that is active).
    ``tools/analysis_tools/plot_sparsity.py`` plots them.

    Args:
        sparsity: The part of the weights with masks that is zero.
        sparse_init: The initial masks. ``'snip'``, ``'erk'`` and ``'uniform'`` choose the density of each layer: by
            ``|weight · gradient|`` on the first batch, ranked over all layers; by Erdős–Rényi–Kernel; or the same for
            all. The active weights of a layer are then random. Operators that ``plugconv_mm.plug`` added to layers are
            ranked as if their factor, which is zero at first and leaves them no gradient, were one. ``'loaded'`` keeps
            the zeros of the loaded weights, without updates, for fine-tuning a sparse network; ``sparsity`` and the
            arguments for updates have no effect then. If the loaded weights have no zeros it warns, and training is
            dense.
        growth: ``'random'``, or ``'gradient'`` for the weights whose gradients are largest in magnitude.
        prune_rate: The part of the active weights that the first update replaces.
        update_frequency: Number of steps of the optimizer between updates.
        only_large_kernel: Whether only the branches of large kernels have masks.
        module: The part of the model to make sparse, such as ``'backbone'``; the whole model by default.

    Raises:
        ConfigError: An argument is out of range, or the model has nothing to mask.
        CheckpointError: A checkpoint to resume from has no masks, or those of another model.
        NonFiniteError: A gradient on the first batch is not finite, with ``'snip'``.
        UnsupportedConfigError: Parameters are sharded, or there are several optimizers.

    Example:
        In a config that trains SLaK-T from scratch, and in one that fine-tunes it::

            custom_hooks = [dict(type='plugconv_mm.DynamicSparsityHook')]
            custom_hooks = [dict(type='plugconv_mm.DynamicSparsityHook', sparse_init='loaded', module='backbone')]
    """

    def __init__(self,
                 sparsity: float = 0.4,
                 sparse_init: str = 'snip',
                 growth: str = 'random',
                 prune_rate: float = 0.5,
                 update_frequency: int = 2000,
                 only_large_kernel: bool = False,
                 module: str = '') -> None:
        for name, value, known in (('sparse_init', sparse_init, ('snip', 'erk', 'uniform', 'loaded')),
                                   ('growth', growth, ('random', 'gradient'))):
            if value not in known:
                raise ConfigError(f'{name} must be one of {", ".join(known)}, got {value!r}')
        for name, value in (('sparsity', sparsity), ('prune_rate', prune_rate)):
            if not 0 < value < 1:
                raise ConfigError(f'{name} must be between 0 and 1, got {value}')
        if update_frequency < 1:
            raise ConfigError(f'update_frequency must be a positive number of steps, got {update_frequency}')
        self.sparsity, self.sparse_init, self.growth = sparsity, sparse_init, growth
        self.prune_rate, self.update_frequency = prune_rate, update_frequency
        self.only_large_kernel, self.module = only_large_kernel, module
        self.masks: dict[str, Tensor] = {}  # bool, by the names of the parameters in the model
        self.step = 0  # of the optimizer
        self._first: dict[str, Tensor] = {}
        self._state: dict | None = None  # that of the loaded checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._state = checkpoint.get(_KEY)

    def before_train(self, runner: Runner) -> None:
        sharded = any(kind.__name__ == 'FullyShardedDataParallel' for kind in type(runner.model).__mro__)
        if sharded or not isinstance(runner.optim_wrapper, OptimWrapper):
            raise UnsupportedConfigError('DynamicSparsityHook needs whole parameters and one optimizer: train with one '
                                         'process or with distributed data parallel, and one optim_wrapper')
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._parameters = self._find_parameters()
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        self._total_steps = math.ceil(runner.max_iters / accumulated)
        if runner.iter:
            self._resume(runner)
        elif self.sparse_init == 'loaded':
            self._start(runner, {name: p.detach() != 0 for name, p in self._parameters.items()})
        elif self.sparse_init != 'snip':
            counts = erk_counts if self.sparse_init == 'erk' else uniform_counts
            self._start_at_random(
                runner, counts([p.shape for p in self._parameters.values()], 1 - self.sparsity))
        # A hook of the optimizer, not of the runner: it is called at steps only, before any other hook reads the
        # weights, and while the gradients still exist.
        self._handle = runner.optim_wrapper.optimizer.register_step_post_hook(lambda *_: self._after_step(runner))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if self.sparse_init == 'snip' and not self.masks:
            self._start_at_random(runner, snip_counts(self._snip_scores(data_batch), 1 - self.sparsity))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[_KEY] = dict(
            step=self.step,
            masks={name: pack_mask(mask) for name, mask in self.masks.items()},
            first_masks={name: pack_mask(mask) for name, mask in self._first.items()})

    def after_train(self, runner: Runner) -> None:
        self._handle.remove()

    def _find_parameters(self) -> dict[str, nn.Parameter]:
        modules = dict(self._model.named_modules())
        if self.module not in modules:
            raise ConfigError(f'DynamicSparsityHook: the model has no module {self.module!r}; it has '
                              f'{", ".join(name for name, _ in self._model.named_children())}')
        roots = [self.module]
        if self.only_large_kernel:
            inside = self.module + '.' if self.module else ''
            roots = [name for name, m in modules.items() if (name + '.').startswith(inside)
                     and isinstance(m, (DecomposedLargeKernelConv2d, LargeKernelConv2d))]
        prefixes = tuple(root + '.' if root else '' for root in roots)
        found = {name: p for name, p in self._model.named_parameters()
                 if p.requires_grad and p.dim() in (2, 4) and name.startswith(prefixes)}
        if not found:
            raise ConfigError(
                'DynamicSparsityHook found nothing to make sparse: no trained parameter of 2 or 4 '
                f'dimensions in {", ".join(map(repr, roots)) or "large kernels, of which there are none"}')
        return found

    def _snip_scores(self, data_batch: dict) -> list[Tensor]:
        """Compute |weight · gradient| on this batch, or on those of all processes."""
        # On copies: neither the statistics of batch norms nor the batch may change. In float32, as half-precision
        # gradients need a scale that is not known yet.
        model = copy.deepcopy(self._model).train()
        model.zero_grad()
        for layer in model.modules():
            if isinstance(layer, Beside) and not layer.gamma.any():
                nn.init.ones_(layer.gamma)
        losses = model._run_forward(model.data_preprocessor(copy.deepcopy(data_batch), True), mode='loss')
        model.parse_losses(losses)[0].backward()
        scores = []
        for name in self._parameters:
            parameter = model.get_parameter(name)
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            all_reduce(gradient, 'mean')
            scores.append((parameter.detach() * gradient).abs())
            if not scores[-1].isfinite().all():
                raise NonFiniteError(
                    f'DynamicSparsityHook: the gradient of {name} on the first batch is not finite, so '
                    "SNIP cannot compare it; look at the data and the model, or use sparse_init='erk'")
        return scores

    def _generator(self, runner: Runner) -> torch.Generator:
        """A generator seeded by the run's seed and the step, so that a resumed run draws the same numbers."""
        device = next(iter(self._parameters.values())).device
        return torch.Generator(device).manual_seed((runner.seed * 1_000_003 + self.step) % 2**63)

    def _start_at_random(self, runner: Runner, counts: list[int]) -> None:
        generator = self._generator(runner)
        self._start(runner, {name: random_mask(p.shape, count, generator)
                             for (name, p), count in zip(self._parameters.items(), counts, strict=True)})

    def _start(self, runner: Runner, masks: dict[str, Tensor]) -> None:
        active = torch.stack([mask.sum() for mask in masks.values()]).tolist()
        # A loaded parameter of zeros only has its initial value; sparse training did not make it so.
        least = self.sparse_init == 'loaded'
        self.masks = {name: mask for (name, mask), n in zip(masks.items(), active, strict=True)
                      if least <= n < 0.99 * mask.numel()}
        if not self.masks and self.sparse_init == 'loaded':
            runner.logger.warning('The weights that were loaded have no zeros to keep: this training is dense. For a '
                                  'sparse one load a sparse network, by load_from or init_cfg')
            return
        if not self.masks:
            raise ConfigError(f'DynamicSparsityHook: a sparsity of {self.sparsity} leaves every layer dense')
        empty = [name for name, n in zip(masks, active, strict=True) if name in self.masks and not n]
        if empty:
            runner.logger.warning(f'No weight is active in {", ".join(empty)}: these layers give zeros')
        self._share_masks()
        self._first = {name: mask.clone() for name, mask in self.masks.items()}
        self._count_active()
        self._mask(runner, self.masks)
        densities = [f'{name.removeprefix("density/")} {value:.3f}'
                     for name, value in self._record(runner, 0, self.masks).items() if name.startswith('density/')]
        runner.logger.info(
            f'Sparse training: {sum(self._active.values()):,} of {sum(m.numel() for m in self.masks.values()):,} '
            f'weights are active in {len(self.masks)} layers, {len(masks) - len(self.masks)} layers are dense. '
            f'Densities: {", ".join(densities)}')

    def _resume(self, runner: Runner) -> None:
        if self._state is None:
            raise CheckpointError(
                'DynamicSparsityHook: the checkpoint to resume from has no masks, so it is not of a '
                'sparse training. Start from its weights with load_from instead, or leave out the hook')
        masks, first = self._state['masks'], self._state['first_masks']
        unknown = sorted(set(masks) - set(self._parameters))
        if unknown:
            raise CheckpointError(
                f'DynamicSparsityHook: the masks of the checkpoint are for other parameters than those '
                f'of this model and these settings, e.g. {unknown[0]}')
        for packed, target in ((masks, self.masks), (first, self._first)):
            for name, bits in packed.items():
                parameter = self._parameters[name]
                target[name] = unpack_mask(bits, parameter.shape).to(parameter.device)
        self.step = self._state['step']
        self._count_active()

    def _share_masks(self) -> None:
        """Give all processes the masks of the first."""
        flat = torch.cat([mask.flatten() for mask in self.masks.values()]).byte()
        broadcast(flat)
        parts = flat.bool().split([mask.numel() for mask in self.masks.values()])
        self.masks = {name: part.view_as(mask) for (name, mask), part in zip(self.masks.items(), parts, strict=True)}

    def _count_active(self) -> None:
        self._active = {name: int(mask.sum()) for name, mask in self.masks.items()}

    def _after_step(self, runner: Runner) -> None:
        self.step += 1
        if not self.masks:
            return
        # Weights that grow after the last step would never be trained.
        if (self.sparse_init != 'loaded' and self.step % self.update_frequency == 0
                and self.step < self._total_steps):
            self._update(runner)
        else:
            self._mask(runner, self.masks, averages=False)  # averages of zeros are zero

    @torch.no_grad()
    def _mask(self, runner: Runner, masks: dict[str, Tensor], averages: bool = True) -> None:
        """Multiply weights, moments and, on demand, averaged weights with masks, in place."""
        state = runner.optim_wrapper.optimizer.state
        ema = [hook.ema_model.module for hook in runner.hooks if averages and isinstance(hook, EMAHook)]
        tensors, factors = [], []
        for name, mask in masks.items():
            parameter = self._parameters[name]
            moments = [value for value in state.get(parameter, {}).values()
                       if torch.is_tensor(value) and value.shape == mask.shape]
            tensors += [parameter.data, *moments]
            factors += [mask] * (1 + len(moments))
            for model in ema:
                tensors.append(model.get_parameter(name).data)
                factors.append(mask.to(tensors[-1].device))
        torch._foreach_mul_(tensors, factors)

    @torch.no_grad()
    def _update(self, runner: Runner) -> None:
        """Drop and grow weights of every layer."""
        rate = cosine_prune_rate(self.step, self._total_steps, self.prune_rate)
        generator = self._generator(runner)
        before, kept = dict(self.masks), dict(self.masks)
        for name, mask in before.items():
            parameter = self._parameters[name]
            count = round(rate * self._active[name])
            if self.growth == 'random':
                kept[name], self.masks[name] = drop_and_grow(parameter, mask, count, generator)
            elif parameter.grad is not None:  # a layer without a gradient has no part in the loss, and keeps its mask
                kept[name], self.masks[name] = drop_and_grow(parameter, mask, count, gradient=parameter.grad)
        self._share_masks()
        self._mask(runner, {name: kept[name] & self.masks[name] for name in kept})
        record = self._record(runner, runner.iter + 1, before)
        runner.logger.info(
            f'Sparse training, step {self.step}: dropped and grew {rate:.1%} of the active weights of each layer; '
            f'{record["turnover/all"]:.1%} are others than before, {record["first_mask_overlap/all"]:.1%} of the '
            'first are active')

    def _record(self, runner: Runner, iteration: int, before: dict[str, Tensor]) -> dict[str, float]:
        """Log the state of every group of layers after this number of iterations."""
        record = mask_statistics(self.masks, self._first, before)
        runner.visualizer.add_scalars({'iter': iteration, **record}, step=iteration)
        return record
