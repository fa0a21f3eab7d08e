"""Cache of the tensors that a layer derives from its weights alone, by map size, in evaluation mode."""
from collections import OrderedDict
from collections.abc import Callable, Hashable
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

    On a CPU, the values of the weights are compared in each call. On a GPU that would make the host wait for it, so
    that versions and addresses are compared there, and values in the first call after the layer's ``train()`` or
    ``eval()`` alone, which say :meth:`recheck`: whoever swaps weights in place through ``.data``, as an exponential
    moving average does, changes neither version nor address, and has to call one of them afterwards, as OpenMMLab's
    loops do.

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
        self._source: tuple[Tensor | None, ...] = ()
        self._marks: tuple[Any, ...] = ()
        self._held: list[Tensor] = []
        self._recheck = False

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.max_entries, )

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def serves(module: nn.Module) -> bool:
        """Whether `module` may use cached values now.

        It may not in training, under a tracer, when gradients of its own parameters are asked for, or on the meta
        device, where parameters have no values.
        """
        if module.training or is_tracing():
            return False
        return not any(p.is_meta or (torch.is_grad_enabled() and p.requires_grad)
                       for p in module.parameters(recurse=False))

    def recheck(self) -> None:
        """Compare values in the next call, wherever the weights lie."""
        self._recheck = True

    def get(self, source: tuple[Tensor | None, ...], key: Hashable, derive: Callable[[], _T]) -> _T:
        """The value that ``derive()`` gives for `key` and the present values of `source`.

        Args:
            source: The parameters that the value depends on.
            key: All else that the value depends on, such as size, data type and backend.
            derive: Computes the value; called without gradients, and only if the value is not there.
        """
        present = [t for t in source if t is not None]
        by_value = any(map(_is_compared_by_value, present))
        marks = () if by_value else tuple(map(_mark, source))
        if not (self._has_values_of(source) if by_value or self._recheck else marks == self._marks):
            self._entries.clear()
            with torch.inference_mode(False), torch.no_grad():
                self._source = tuple(None if t is None else t.detach().clone() for t in source)
        # While the tensors are held, no other one can get their address.
        self._marks, self._held, self._recheck = marks, [] if by_value else [t.detach() for t in present], False
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        # An inference tensor could not serve a later call that needs gradients of the input.
        with torch.inference_mode(False), torch.no_grad():
            value = self._entries[key] = derive()
        if len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)
        return value

    def _has_values_of(self, source: tuple[Tensor | None, ...]) -> bool:
        """Whether `source` has the values that the entries were derived from."""
        return len(source) == len(self._source) and all(
            (a is None and b is None) or
            (a is not None and b is not None and a.device == b.device and a.dtype == b.dtype and torch.equal(a, b))
            for a, b in zip(source, self._source, strict=True))


def _is_compared_by_value(t: Tensor) -> bool:
    """Whether to look at the values in each call: they are at hand, or nothing else tells of a change."""
    return t.device.type == 'cpu' or t.is_inference()


def _mark(t: Tensor | None) -> tuple[Any, ...] | None:
    """What changes where a tensor is written to, or has other memory."""
    return None if t is None else (t.data_ptr(), t._version, t.shape, t.stride(), t.dtype, t.device)
