"""Cache of the tensors that a layer derives from its weights alone, by map size, in evaluation mode."""
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.tracing import is_tracing

_T = TypeVar('_T')


class KernelCache:
    """Cache of the values that one layer derives from its parameters, least recently used first to go.

    A stretched kernel, its transform or its circulant depends on the weights and on the map's size, not on the map.
    In evaluation it is derived once per size. A layer holds one cache as a plain attribute: it is not part of the
    state dict, and copies and pickles of the layer start with an empty one.

    Values are derived anew when the parameters change. On a CPU their values are compared at each call. Elsewhere that
    would stop the host until the device has done all its work, so their memory and version counters are compared, which
    tell of all changes but those made through ``.data`` in place, as by mmengine's moving averages, and by fused
    optimizers. A layer therefore calls :meth:`forget` in its ``train()``, which the loops of evaluation call after
    these averages are swapped in, and :meth:`serves` forgets whenever the parameters are trained.

    Args:
        max_entries: Number of sizes kept, so that an evaluation over images of many shapes does not fill the memory.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache
        >>> cache, weight = KernelCache(max_entries=2), torch.ones(3)
        >>> cache.get((weight, ), 'sum', weight.sum)
        tensor(3.)
        >>> weight[0] = 2  # the next call derives the value anew
        >>> cache.get((weight, ), 'sum', weight.sum)
        tensor(4.)
    """

    def __init__(self, max_entries: int = 16) -> None:
        self.max_entries = max_entries
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()
        self._source: tuple[_Seen | None, ...] = ()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.max_entries, )

    def __len__(self) -> int:
        return len(self._entries)

    def serves(self, module: nn.Module) -> bool:
        """Whether the layer that holds this cache may use cached values now.

        It may not in training, under a tracer, when gradients of its own parameters are asked for, on the meta device,
        where parameters have no values, and while a CUDA graph is captured, which would keep the address of a value but
        not the value. Parameters without version counters, those made in inference mode, serve on a CPU only.
        """
        if module.training or is_tracing():
            return False
        parameters = list(module.parameters(recurse=False))
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            self.forget()  # an optimizer may follow
            return False
        if any(p.is_meta or (p.is_inference() and not _is_read_freely(p)) for p in parameters):
            return False
        return not any(p.is_cuda and torch.cuda.is_current_stream_capturing() for p in parameters)

    def forget(self) -> None:
        """Forget what was derived from parameters whose values are not compared."""
        if any(seen is not None and not _is_read_freely(seen.tensor) for seen in self._source):
            self._source = ()
            self._entries.clear()

    def get(self, source: tuple[Tensor | None, ...], key: Hashable, derive: Callable[[], _T]) -> _T:
        """The value that ``derive()`` gives for `key` and the present values of `source`.

        Args:
            source: The parameters that the value depends on.
            key: All else that the value depends on, such as size, data type and backend.
            derive: Computes the value; called without gradients, and only if the value is not there.
        """
        if len(source) != len(self._source) or not all(map(_is_unchanged, source, self._source)):
            self._entries.clear()
            with torch.inference_mode(False), torch.no_grad():
                self._source = tuple(None if t is None else _Seen.of(t) for t in source)
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        # An inference tensor could not serve a later call that needs gradients of the input.
        with torch.inference_mode(False), torch.no_grad():
            value = self._entries[key] = derive()
        if len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)
        return value


@dataclass
class _Seen:
    """A parameter as it was.

    Attributes:
        tensor: On a CPU a copy; elsewhere an alias, which keeps the memory from being used for another one.
        version: The version counter where `tensor` is an alias.
    """
    tensor: Tensor
    version: int = 0

    @classmethod
    def of(cls, t: Tensor) -> '_Seen':
        return cls(t.detach().clone()) if _is_read_freely(t) else cls(t.detach(), t._version)


def _is_read_freely(t: Tensor) -> bool:
    """Whether the host can read the values of `t` without waiting for a device."""
    return t.device.type == 'cpu'


def _is_unchanged(t: Tensor | None, seen: _Seen | None) -> bool:
    if t is None or seen is None:
        return t is seen
    old = seen.tensor
    if t.device != old.device or t.dtype != old.dtype:
        return False
    if _is_read_freely(t):
        return torch.equal(t, old)
    return (t.data_ptr(), t.shape, t.stride(), t._version) == (old.data_ptr(), old.shape, old.stride(), seen.version)
