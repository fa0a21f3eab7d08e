"""The test whether a layer may be used by its weights alone, without being called."""
from typing import TypeGuard, TypeVar

import torch.nn.modules.module as registry
from torch import Tensor, nn

M = TypeVar('M', bound=nn.Module)
_PLAIN_TENSORS = nn.Parameter, Tensor, type(None)


def is_plain(module: nn.Module, *kinds: type[M]) -> TypeGuard[M]:
    """Whether calling `module` does what one of `kinds` does with its weights, and nothing else.

    A fast path may fold, slice or chunk the weights of such a layer. It must call any other: one that another class
    wraps or replaces (LoRA, quantisation, FSDP), whose ``forward`` is overridden, or that has hooks, parametrisations
    or weights of a tensor subclass (quantised, sharded). A subclass that inherits ``forward`` counts as its parent.

    It takes one or two microseconds, so that each call of an operator can ask.

    Args:
        module: The layer.
        kinds: Classes whose ``forward`` the fast path knows.
    """
    forward, own = type(module).forward, module.__dict__
    for kind in kinds:
        if forward is kind.forward:
            break
    else:
        return False
    if (own['_forward_hooks'] or own['_forward_pre_hooks'] or own['_backward_hooks'] or own['_backward_pre_hooks']
            or registry._has_any_global_hook() or 'forward' in own or 'parametrizations' in own['_modules']):
        return False
    for parameter in own['_parameters'].values():
        kind = type(parameter)
        # Fake and functional tensors, in which compilers and torch.func compute, are subclasses as well.
        if kind not in _PLAIN_TENSORS and hasattr(kind, '__tensor_flatten__'):
            return False
    return True
