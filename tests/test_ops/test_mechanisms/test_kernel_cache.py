"""The cache of derived kernels by itself; tests of ParC and of the global-local filter hold it against their layers."""
import copy
import doctest
import pickle

import pytest
import torch
from torch import nn

from plugconv_mm.ops.mechanisms import kernel_cache
from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache


class Derived:
    """Twice a tensor, with a count of how often it was computed."""

    def __init__(self, source):
        self.source, self.calls = source, 0

    def __call__(self):
        self.calls += 1
        return 2 * self.source


def test_a_value_is_derived_once_for_each_key():
    cache, derived = KernelCache(), Derived(torch.ones(2))
    first = cache.get((derived.source, ), 7, derived)
    assert cache.get((derived.source, ), 7, derived) is first and torch.equal(first, torch.full((2, ), 2.))
    assert cache.get((derived.source, ), 9, derived) is not first
    assert derived.calls == 2 and len(cache) == 2


@pytest.mark.parametrize('change', [
    lambda t: t.mul_(3), lambda t: t.data.mul_(3), lambda t: setattr(t, 'data', torch.full((2, ), 3.))],
    ids=['in place', 'past the version counter', 'other memory'])
def test_changed_values_are_derived_anew(change):
    weight = nn.Parameter(torch.ones(2))
    cache, derived = KernelCache(), Derived(weight)
    cache.get((weight, None), 7, derived)
    cache.get((weight, None), 9, derived)
    with torch.no_grad():
        change(weight)
    assert torch.equal(cache.get((weight, None), 7, derived), torch.full((2, ), 6.))
    assert len(cache) == 1  # what was derived from the old values is gone


@pytest.mark.parametrize('other', [
    (torch.ones(2, dtype=torch.float64), None), (torch.ones(2), torch.ones(1)), (torch.ones(2), ), (None, None),
    (torch.ones(3), None)], ids=['type', 'one more', 'fewer', 'none', 'shape'])
def test_other_sources_are_told_apart(other):
    cache = KernelCache()
    cache.get((torch.ones(2), None), 7, lambda: 'first')
    assert cache.get(other, 7, lambda: 'second') == 'second'
    assert cache.get(other, 7, lambda: 'third') == 'second'


def test_equal_values_in_another_tensor_serve():
    cache = KernelCache()
    cache.get((torch.ones(2), ), 7, lambda: 'first')
    assert cache.get((torch.ones(2), ), 7, lambda: 'second') == 'first'


def test_the_least_recently_used_goes_first():
    cache, source = KernelCache(max_entries=2), (torch.ones(1), )
    for key in (1, 2, 1, 3):
        cache.get(source, key, lambda key=key: key)
    assert len(cache) == 2
    assert cache.get(source, 1, lambda: 'anew') == 1 and cache.get(source, 2, lambda: 'anew') == 'anew'


def test_values_of_inference_mode_serve_gradients():
    weight = nn.Parameter(torch.ones(2))
    cache, derived = KernelCache(), Derived(weight)
    with torch.inference_mode():
        cache.get((weight, ), 7, derived)
    value = cache.get((weight, ), 7, derived)
    assert derived.calls == 1 and not value.is_inference() and not value.requires_grad
    x = torch.ones(2, requires_grad=True)
    (x * value).sum().backward()
    assert torch.equal(x.grad, value)


def test_who_is_served():
    layer = nn.Linear(2, 2)
    assert not KernelCache.serves(layer)  # in training
    layer.eval()
    assert not KernelCache.serves(layer)  # gradients of its weights are asked for
    with torch.no_grad():
        assert KernelCache.serves(layer)
    with torch.inference_mode():
        assert KernelCache.serves(layer)
    assert KernelCache.serves(copy.deepcopy(layer).requires_grad_(False))
    with torch.no_grad():
        assert not KernelCache.serves(nn.Linear(2, 2, device='meta').eval())  # without values
        served = []
        layer.register_forward_hook(lambda *_: served.append(KernelCache.serves(layer)))
        torch.jit.trace(layer, torch.ones(1, 2), check_trace=False)
    assert served and not any(served)


def test_copies_and_pickles_are_empty():
    cache = KernelCache(max_entries=3)
    cache.get((torch.ones(1), ), 7, lambda: 1)
    for twin in (copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(twin) == 0 and twin.max_entries == 3
    assert len(cache) == 1


def test_examples():
    tested = doctest.testmod(kernel_cache)
    assert tested.attempted and not tested.failed
