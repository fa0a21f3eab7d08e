"""The test whether a layer may be used by its weights alone, without being called."""
from typing import TypeGuard, TypeVar

import torch.nn.modules.module as registry
from torch import nn

M = TypeVar('M', bound=nn.Module)

_GLOBAL_HOOKS = (registry._global_forward_pre_hooks, registry._global_forward_hooks,
                 registry._global_backward_pre_hooks, registry._global_backward_hooks)


def is_plain(module: nn.Module, *kinds: type[M]) -> TypeGuard[M]:
    """Whether calling `module` does what one of `kinds` does with its weights, and nothing else.

    A fast path may fold, slice or chunk the weights of such a layer. It must call any other: one that another class
    wraps or replaces (LoRA, quantisation, FSDP), whose ``forward`` is overridden, or that has hooks, parametrisations
    or weights of a tensor subclass (quantised, sharded). A subclass that inherits ``forward`` counts as its parent.

    It takes less than a microsecond, so that each call of an operator can ask.

    Args:
        module: The layer.
        kinds: Classes whose ``forward`` the fast path knows.
    """
    own = module.__dict__
    if (own['_forward_hooks'] or own['_forward_pre_hooks'] or own['_backward_hooks'] or own['_backward_pre_hooks']
            or any(_GLOBAL_HOOKS) or 'forward' in own or 'parametrizations' in own['_modules']):
        return False
    for parameter in own['_parameters'].values():
        # Fake and functional tensors, in which compilers and torch.func compute, are subclasses that may pass.
        if type(parameter) is not nn.Parameter and hasattr(type(parameter), '__tensor_flatten__'):
            return False
    forward = type(module).forward
    for kind in kinds:
        if forward is kind.forward:
            return True
    return False
