"""Training with parameters, gradients and the optimizer's moments sharded over processes.

Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", https://arxiv.org/abs/2304.11277.
"""
import re
from collections.abc import Sequence

from mmengine._strategy import fsdp
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.nn.utils import clip_grad_norm_

from plugconv_mm.checkpoint.fitting import check_any_fits, fit_to_model
from plugconv_mm.errors import ConfigError
from plugconv_mm.ops.residual_block import ResidualBlock
from plugconv_mm.registry import STRATEGIES


def wrap_residual_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """An ``auto_wrap_policy`` of FSDP that gathers, and frees, each residual block of our backbones as a whole.

    A policy by size would wrap single convolutions, whose kernels gnConv, SLaK and KernelWarehouse use without calling
    them.

    Args:
        module: A part of the model.
        recurse: Whether FSDP asks about the children of the part, and not about the part itself.
        nonwrapped_numel: Number of parameters of the part that are in no other wrapper.
    """
    return recurse or isinstance(module, ResidualBlock)


@STRATEGIES.register_module()
class FSDPStrategy(fsdp.FSDPStrategy):
    """mmengine's ``FSDPStrategy``, with the results of a training without sharding.

    Weights, moments and gradients are sharded; one residual block at a time is gathered for its pass. Differences from
    mmengine's strategy:

    - Parameter groups, such as those without weight decay, are those of whole parameters. A shard is one-dimensional,
      so that all parameters would be taken for biases.
    - Gradients are clipped by the norm over all shards, and not by the norm of the process's own.
    - A checkpoint is one file, with whole tensors under their names. Training is resumed from it with or without
      sharding, and with sharding from a checkpoint that was written without.
    - Weights in a checkpoint that do not fit the model are named in a warning.
    - It runs on CPUs.

    Averaged weights (``EMAHook``) and ``DynamicSparsityHook`` need whole parameters and cannot be combined with it.

    Args:
        model_wrapper: Arguments of ``MMFullyShardedDataParallel``, such as ``mixed_precision`` or another
            ``auto_wrap_policy`` than ``wrap_residual_blocks``.
        **kwargs: Arguments of mmengine's strategy, such as ``activation_checkpointing``.

    Raises:
        ConfigError: The wrapper does not keep the original parameters (``use_orig_params=False``).

    Example:
        In a config::

            runner_type = 'FlexibleRunner'
            strategy = dict(type='plugconv_mm.FSDPStrategy')
    """

    def __init__(self, *, model_wrapper: dict | None = None, **kwargs: object) -> None:
        wrapper = dict(auto_wrap_policy=wrap_residual_blocks) | dict(model_wrapper or {})
        if not wrapper.get('use_orig_params', True):
            raise ConfigError('plugconv_mm.FSDPStrategy needs use_orig_params=True, the default: leave it out of '
                              'strategy.model_wrapper')
        on_cpu = get_device() == 'cpu'
        if on_cpu:
            wrapper.setdefault('device_id', 'cpu')
        super().__init__(model_wrapper=wrapper, state_dict_cfg='full', **kwargs)
        if on_cpu:
            # From a CPU to a CPU nothing is copied: weights would be read after they are freed, and all moments would
            # be that gathered last.
            self.state_dict_config.offload_to_cpu = self.optim_state_dict_config.offload_to_cpu = False

    def prepare(self, model: nn.Module | dict, *, optim_wrapper: dict | None = None, **kwargs: object) -> tuple:
        self._optim_wrapper_cfg = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        # The optimizer is built while parameters have their own names and shapes, which determine their groups. They
        # stay the same objects when they are sharded.
        if self._optim_wrapper_cfg is not None:
            self._built = super().build_optim_wrapper(self._optim_wrapper_cfg, model)
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        return super()._wrap_model(model)

    def build_optim_wrapper(self, optim_wrapper: dict, model: nn.Module) -> OptimWrapper:
        if self._built.clip_grad_kwargs and self._built.clip_func is clip_grad_norm_:
            self._built.clip_func = lambda params, **kwargs: model.clip_grad_norm_(**kwargs)
        return self._built

    def load_model_state_dict(self, state_dict: dict, *, strict: bool = False,
                              revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''), )) -> None:
        for pattern, replacement in revise_keys:
            state_dict = {re.sub(pattern, replacement, name): tensor for name, tensor in state_dict.items()}
        state_dict = fit_to_model(state_dict, self._shapes)
        fit = {name: tensor for name, tensor in state_dict.items() if self._shapes.get(name) == tensor.shape}
        wrong = {'missing': [name for name in self._shapes if name not in state_dict and 'num_batches' not in name],
                 'unexpected': [name for name in state_dict if name not in self._shapes],
                 'of another shape': [name for name in state_dict if name in self._shapes and name not in fit]}
        check_any_fits(state_dict, len(fit), self._shapes, type(self.model.module).__name__)
        if any(wrong.values()):
            message = f'Of the checkpoint {len(fit)} tensors fit the {len(self._shapes)} of the model. ' + '; '.join(
                f'{reason}: {", ".join(names)}' for reason, names in wrong.items() if names)
            if strict:
                raise RuntimeError(message)
            self.logger.warning(message)
        self.model.load_state_dict(fit, strict=False)

    def optim_state_dict(self) -> dict:
        state = FSDP.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        # the wrapper's own state, such as the scale of the loss
        return state | {name: value for name, value in self.optim_wrapper.state_dict().items()
                        if name not in ('state', 'param_groups')}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        optimizer = self.optim_wrapper.optimizer
        wrapper = {name: state_dict.pop(name) for name in set(state_dict) - {'state', 'param_groups'}}
        if not all(isinstance(name, str) for name in state_dict['state']):  # numbers, if it was not sharded
            names = {id(param): name.replace('_fsdp_wrapped_module.', '')
                     for name, param in self.model.named_parameters()}
            names = [names[id(param)] for group in optimizer.param_groups for param in group['params']]
            state_dict = dict(
                state={names[number]: state for number, state in state_dict['state'].items()},
                param_groups=[group | dict(params=[names[number] for number in group['params']])
                              for group in state_dict['param_groups']])
        self.optim_wrapper.load_state_dict(
            FSDP.optim_state_dict_to_load(self.model, optim=optimizer, optim_state_dict=state_dict) | wrapper)
