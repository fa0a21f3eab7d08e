"""Dynamic sparse training, as SLaK is trained, and fine-tuning that keeps a sparse network sparse.

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
from torch import Tensor, nn

from plugconv_mm.errors import ConfigError, UnsupportedConfigError
from plugconv_mm.ops import DecomposedLargeKernelConv2d
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
from plugconv_mm.registry import HOOKS

_KEY = 'dynamic_sparsity'  # in the checkpoint


@HOOKS.register_module()
class DynamicSparsityHook(Hook):
    """Trains with a fixed number of weights at zero, which change places as training goes on.

    Every parameter of 2 or 4 dimensions that is trained has a mask. Weights, the optimizer's momenta and averaged
    weights (``EMAHook``) are masked where the mask is 0. Every `update_frequency` steps of the optimizer, each layer
    drops the part of its active weights that is smallest in magnitude (`prune_rate`, which goes to 0.005 over the run
    like a cosine) and grows as many inactive ones, which start at 0. The count of active weights of a layer never
    changes; a layer that would have a density of 0.99 or more stays dense.

    The masks, and the first ones, are in the checkpoint as ``dynamic_sparsity``, apart from the state dict, which
    therefore loads into a dense model. A resumed run goes on with them. The same masks hold in every process.

    With each update goes a record into the log: ``density``, ``turnover`` (the part of the active weights that was
    not active before) and ``first_mask_overlap`` (the part of the first mask that is active) of every group of layers
    and of ``all``. ``tools/analysis_tools/plot_sparsity.py`` plots them.

    Args:
        sparsity (float): weights at zero, as a part of all that have a mask.
        sparse_init (str): where the first masks come from. ``'snip'``, ``'erk'`` or ``'uniform'`` say how dense each
            layer is: by ``|weight · gradient|`` on the first batch compared over all layers, by Erdős–Rényi–Kernel, or
            all alike; which weights are active is random then. ``'loaded'`` takes the zeros of the weights that were
            loaded and keeps them, without updates: for fine-tuning a sparse network, with no use for `sparsity` and
            what says how to update. Where they have none it warns, and training is dense.
        growth (str): ``'random'`` or ``'gradient'``, where its magnitude is largest.
        prune_rate (float): part of the active weights that the first update replaces.
        update_frequency (int): steps of the optimizer between updates.
        only_large_kernel (bool): mask the large kernels' branches alone.
        module (str): the part of the model to make sparse, such as ``'backbone'``; all of it by default.

    Raises:
        ValueError: An argument is out of range.
        ConfigError: The model has nothing to mask, or a checkpoint to resume from has no masks or those of another
            model.
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
                raise ValueError(f'{name} must be one of {", ".join(known)}, got {value!r}')
        for name, value in (('sparsity', sparsity), ('prune_rate', prune_rate)):
            if not 0 < value < 1:
                raise ValueError(f'{name} must be between 0 and 1, got {value}')
        if update_frequency < 1:
            raise ValueError(f'update_frequency must be a positive number of steps, got {update_frequency}')
        self.sparsity, self.sparse_init, self.growth = sparsity, sparse_init, growth
        self.prune_rate, self.update_frequency = prune_rate, update_frequency
        self.only_large_kernel, self.module = only_large_kernel, module
        self.masks: dict[str, Tensor] = {}  # bool, by the names of the parameters in the model
        self.step = 0  # of the optimizer
        self._first: dict[str, Tensor] = {}
        self._state: dict | None = None  # of the checkpoint that was loaded

    def after_load_checkpoint(self, runner, checkpoint):
        self._state = checkpoint.get(_KEY)

    def before_train(self, runner):
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
        # A hook of the optimizer, not of the runner: it knows which iterations make a step, it comes before all that
        # looks at the weights, and the gradients are still there.
        self._handle = runner.optim_wrapper.optimizer.register_step_post_hook(lambda *_: self._after_step(runner))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.sparse_init == 'snip' and not self.masks:
            self._start_at_random(runner, snip_counts(self._snip_scores(data_batch), 1 - self.sparsity))

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint[_KEY] = dict(
            step=self.step,
            masks={name: pack_mask(mask) for name, mask in self.masks.items()},
            first_masks={name: pack_mask(mask) for name, mask in self._first.items()})

    def after_train(self, runner):
        self._handle.remove()

    def _find_parameters(self) -> dict[str, nn.Parameter]:
        modules = dict(self._model.named_modules())
        if self.module not in modules:
            raise ConfigError(f'DynamicSparsityHook: the model has no module {self.module!r}; it has '
                             f'{", ".join(name for name, _ in self._model.named_children())}')
        roots = [self.module]
        if self.only_large_kernel:
            roots = [name for name, m in modules.items() if isinstance(m, DecomposedLargeKernelConv2d)
                     and (name + '.').startswith(self.module + '.' if self.module else '')]
        prefixes = tuple(root + '.' if root else '' for root in roots)
        found = {name: p for name, p in self._model.named_parameters()
                 if p.requires_grad and p.dim() in (2, 4) and name.startswith(prefixes)}
        if not found:
            raise ConfigError('DynamicSparsityHook found nothing to make sparse: no trained parameter of 2 or 4 '
                             f'dimensions in {", ".join(map(repr, roots)) or "large kernels, of which there are none"}')
        return found

    def _snip_scores(self, data_batch) -> list[Tensor]:
        """|weight · gradient| on this batch; over several processes the gradient is that of all their batches."""
        # On copies: neither the statistics of batch norms nor the batch may change. In float32, as half-precision
        # gradients need a scale that is not known yet.
        model = copy.deepcopy(self._model).train()
        model.zero_grad()
        losses = model._run_forward(model.data_preprocessor(copy.deepcopy(data_batch), True), mode='loss')
        model.parse_losses(losses)[0].backward()
        scores = []
        for name in self._parameters:
            parameter = model.get_parameter(name)
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            all_reduce(gradient, 'mean')
            scores.append((parameter.detach() * gradient).abs())
            if not scores[-1].isfinite().all():
                raise ConfigError(f'DynamicSparsityHook: the gradient of {name} on the first batch is not finite, so '
                                 "SNIP cannot compare it; look at the data and the model, or use sparse_init='erk'")
        return scores

    def _generator(self, runner) -> torch.Generator:
        """Randomness that is a function of the run's seed and the step, in a resumed run too."""
        device = next(iter(self._parameters.values())).device
        return torch.Generator(device).manual_seed((runner.seed * 1_000_003 + self.step) % 2**63)

    def _start_at_random(self, runner, counts: list[int]) -> None:
        generator = self._generator(runner)
        self._start(runner, {name: random_mask(p.shape, count, generator)
                             for (name, p), count in zip(self._parameters.items(), counts, strict=True)})

    def _start(self, runner, masks: dict[str, Tensor]) -> None:
        active = torch.stack([mask.sum() for mask in masks.values()]).tolist()
        # In loaded weights, nothing but zeros is an initial value and not what sparse training left.
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
            runner.logger.warning(f'No weight is active in {", ".join(empty)}: these layers give nothing')
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

    def _resume(self, runner) -> None:
        if self._state is None:
            raise ConfigError('DynamicSparsityHook: the checkpoint to resume from has no masks, so it is not of a '
                             'sparse training. Start from its weights with load_from instead, or leave out the hook')
        masks, first = self._state['masks'], self._state['first_masks']
        unknown = sorted(set(masks) - set(self._parameters))
        if unknown:
            raise ConfigError(f'DynamicSparsityHook: the masks of the checkpoint are for other parameters than those '
                             f'of this model and these settings, e.g. {unknown[0]}')
        for packed, target in ((masks, self.masks), (first, self._first)):
            for name, bits in packed.items():
                parameter = self._parameters[name]
                target[name] = unpack_mask(bits, parameter.shape).to(parameter.device)
        self.step = self._state['step']
        self._count_active()

    def _share_masks(self) -> None:
        """Every process goes on with the masks of the first."""
        flat = torch.cat([mask.flatten() for mask in self.masks.values()]).byte()
        broadcast(flat)
        parts = flat.bool().split([mask.numel() for mask in self.masks.values()])
        self.masks = {name: part.view_as(mask) for (name, mask), part in zip(self.masks.items(), parts, strict=True)}

    def _count_active(self) -> None:
        self._active = {name: int(mask.sum()) for name, mask in self.masks.items()}

    def _after_step(self, runner) -> None:
        self.step += 1
        if not self.masks:
            return
        # After the last step nothing would train what an update grows.
        if (self.sparse_init != 'loaded' and self.step % self.update_frequency == 0
                and self.step < self._total_steps):
            self._update(runner)
        else:
            self._mask(runner, self.masks, averages=False)  # they are zero there, and averages of zeros stay so

    @torch.no_grad()
    def _mask(self, runner, masks: dict[str, Tensor], averages: bool = True) -> None:
        """Zero weights, momenta, and on demand averaged weights, in place."""
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
    def _update(self, runner) -> None:
        rate = cosine_prune_rate(self.step, self._total_steps, self.prune_rate)
        generator = self._generator(runner)
        before, kept = dict(self.masks), dict(self.masks)
        for name, mask in before.items():
            parameter = self._parameters[name]
            count = round(rate * self._active[name])
            if self.growth == 'random':
                kept[name], self.masks[name] = drop_and_grow(parameter, mask, count, generator)
            elif parameter.grad is not None:  # a layer that took no part in the loss has nothing to go by
                kept[name], self.masks[name] = drop_and_grow(parameter, mask, count, gradient=parameter.grad)
        self._share_masks()
        self._mask(runner, {name: kept[name] & self.masks[name] for name in kept})
        record = self._record(runner, runner.iter + 1, before)
        runner.logger.info(
            f'Sparse training, step {self.step}: dropped and grew {rate:.1%} of the active weights of each layer; '
            f'{record["turnover/all"]:.1%} are others than before, {record["first_mask_overlap/all"]:.1%} of the '
            'first are active')

    def _record(self, runner, iteration: int, before: dict[str, Tensor]) -> dict[str, float]:
        """Log the state of every group of layers after so many iterations."""
        record = mask_statistics(self.masks, self._first, before)
        runner.visualizer.add_scalars({'iter': iteration, **record}, step=iteration)
        return record
