"""The cache of derived kernels by itself; tests of ParC and of the global-local filter hold it against their layers."""
import copy
import doctest
import pickle

import pytest
import torch
from torch import nn

from plugconv_mm.ops import ParC2d
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


@pytest.fixture
def comparisons(monkeypatch):
    """Weights as on a GPU, where reading a value waits for the device; the list has each comparison of values."""
    read = []
    equal = torch.equal
    monkeypatch.setattr(kernel_cache, '_is_compared_by_value', torch.Tensor.is_inference)
    monkeypatch.setattr(torch, 'equal', lambda a, b: read.append(1) or equal(a, b))
    return read


def test_a_gpu_is_not_waited_for(comparisons):
    weight, bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    cache, derived = KernelCache(), Derived(weight)
    for _ in range(3):
        cache.get((weight, bias, None), 7, derived)
    assert derived.calls == 1 and not comparisons


def _other_memory(t):
    t.data = torch.full((2, ), 3.)


def _load(t):
    holder = nn.Module()
    holder.t = t
    holder.load_state_dict(dict(t=torch.full((2, ), 3.)))


def _step(t):
    t.grad = torch.full((2, ), -2.)
    torch.optim.SGD([t], lr=1.).step()


@pytest.mark.parametrize('change', [lambda t: t.mul_(3), _other_memory, _load, _step],
                         ids=['in place', 'other memory', 'load_state_dict', 'optimizer'])
def test_a_change_on_a_gpu_is_seen_without_waiting(comparisons, change):
    weight = nn.Parameter(torch.ones(2))
    cache, derived = KernelCache(), Derived(weight)
    cache.get((weight, ), 7, derived)
    with torch.no_grad():
        change(weight)
    assert cache.get((weight, ), 7, derived).tolist() == [6, 6] and not comparisons


def test_freed_memory_is_no_match(comparisons):
    cache = KernelCache()
    for value in range(20):  # the allocator would give all of them one address
        assert cache.get((torch.full((1000, ), float(value)), ), 7, lambda value=value: value) == value


def test_weights_swapped_past_the_versions_are_seen_after_a_change_of_mode(comparisons):
    layer = ParC2d(4, meta_size=5).eval()
    x, average = torch.rand(1, 4, 6, 6), torch.rand(4, 1, 5, 1)
    with torch.inference_mode():
        layer(x)
        layer.weight.data.copy_(average)  # as an exponential moving average is put in the place of the weights
        layer.eval()
        swapped = layer(x)
        seen = len(comparisons)
        assert torch.equal(layer(x), swapped) and seen and len(comparisons) == seen + 1  # that of this line
    torch.testing.assert_close(swapped, layer.train()(x))


def test_weights_of_inference_mode_are_compared_by_value(comparisons):
    with torch.inference_mode():
        weight = torch.ones(2)
        cache = KernelCache()
        cache.get((weight, ), 7, weight.sum)
        weight[0] = 2
        assert cache.get((weight, ), 7, weight.sum) == 3


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
