"""The cache of derived kernels by itself; tests of ParC and of the global-local filter hold it against their layers."""
import copy
import doctest
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from plugconv_mm.ops import GlobalLocalFilter, ParC2d
from plugconv_mm.ops.mechanisms import kernel_cache
from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache
from plugconv_mm.ops.parc.backends import BACKENDS


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
    layer, serves = nn.Linear(2, 2), KernelCache().serves
    assert not serves(layer)  # in training
    layer.eval()
    assert not serves(layer)  # gradients of its weights are asked for
    with torch.no_grad():
        assert serves(layer)
    with torch.inference_mode():
        assert serves(layer) and serves(nn.Linear(2, 2).eval())
    assert serves(copy.deepcopy(layer).requires_grad_(False))
    with torch.no_grad():
        assert not serves(nn.Linear(2, 2, device='meta').eval())  # without values
        served = []
        layer.register_forward_hook(lambda *_: served.append(serves(layer)))
        torch.jit.trace(layer, torch.ones(1, 2), check_trace=False)
    assert served and not any(served)


# Elsewhere than on a CPU. There is not always a device at hand: the CPU's tensors are treated as those of another.


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setattr(kernel_cache, '_is_read_freely', lambda t: False)


class Reads(TorchDispatchMode):
    """A count of the operations that give values to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.equal, torch.ops.aten._local_scalar_dense,
                                              torch.ops.aten.is_nonzero)
        return func(*args, **(kwargs or {}))


LAYERS = {
    **{f'parc-{backend}': (lambda backend=backend: ParC2d(4, 'H', 5, backend=backend)) for backend in BACKENDS},
    'global-local-filter': lambda: GlobalLocalFilter(4, 5, 3)}


def parameter_of(layer):
    return layer.complex_weight if isinstance(layer, GlobalLocalFilter) else layer.weight


@pytest.mark.parametrize('name', LAYERS)
def test_no_value_goes_to_the_host(name, elsewhere):
    layer, x = LAYERS[name]().eval(), torch.randn(1, 4, 6, 7)
    with torch.no_grad(), Reads() as reads:
        for _ in range(3):
            layer(x)
        layer.train().eval()(x)
    assert reads.count == 0 and len(layer._cache) == 1


def test_reads_are_counted_on_a_cpu():
    """The count of the test above is not zero by itself."""
    layer, x = ParC2d(4, 'H', 5).eval(), torch.randn(1, 4, 6, 7)
    with torch.no_grad(), Reads() as reads:
        layer(x)
        layer(x)
    assert reads.count > 0


@pytest.mark.filterwarnings('ignore:Accessing the data pointer of FakeTensor')
@pytest.mark.parametrize('name', LAYERS)
def test_no_value_of_a_gpu_is_read(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    with FakeTensorMode(), torch.device('cuda'), torch.no_grad():
        layer, x = LAYERS[name]().eval(), torch.randn(1, 4, 6, 7)
        for _ in range(2):
            assert layer(x).device.type == 'cuda'  # a fake tensor has no values: to read one raises
        assert len(layer._cache) == 1
        layer.train().eval()
        assert len(layer._cache) == 0
        layer(x)
        monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
        assert not layer._cache.serves(layer)


def fused_step(layer):
    """An optimizer that leaves version counters alone, in a fine-tuning that keeps evaluation mode."""
    layer(torch.randn(1, 4, 6, 7)).square().sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.5, fused=True).step()


def averaged(layer):
    """What mmengine's EMAHook does before an evaluation, and the evaluation's loop after it."""
    for p in layer.parameters():
        p.data.copy_(torch.randn_like(p))
    layer.eval()


def averaged_and_back(layer):
    kept = [p.detach().clone() for p in layer.parameters()]
    averaged(layer)
    with torch.no_grad():
        layer(torch.randn(1, 4, 6, 7))
    for p, old in zip(layer.parameters(), kept, strict=True):
        p.data.copy_(old + 1)
    layer.train()
    layer.eval()


def in_place(layer):
    with torch.no_grad():
        parameter_of(layer).mul_(3)


def other_memory(layer):
    for p in layer.parameters():
        p.data = torch.randn_like(p)


def step(layer):
    layer(torch.randn(1, 4, 6, 7)).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.5).step()


def load(layer):
    layer.load_state_dict({key: torch.randn_like(value) for key, value in layer.state_dict().items()})


def load_by_assignment(layer):
    state = {key: torch.randn_like(value) for key, value in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)


def other_type(layer):
    in_place(layer)
    layer.bfloat16().float()


@pytest.mark.parametrize('change', [in_place, other_memory, averaged, averaged_and_back, step, fused_step, load,
                                    load_by_assignment, other_type], ids=lambda change: change.__name__)
@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('by_value', [True, False])
def test_changes_of_a_layer_are_seen(change, name, by_value, monkeypatch):
    monkeypatch.setattr(kernel_cache, '_is_read_freely', lambda t: by_value)
    torch.manual_seed(0)
    layer, x = LAYERS[name]().eval(), torch.randn(1, 4, 6, 7)
    with torch.no_grad():
        before = layer(x)
    change(layer)
    with torch.no_grad():
        after = layer(x)
        assert len(layer._cache) == 1
        expected = copy.deepcopy(layer)(x)
    assert torch.equal(after, expected) and not torch.allclose(after, before, atol=1e-3)


def test_memory_is_not_used_again_unseen(elsewhere):
    cache, weight = KernelCache(), nn.Parameter(torch.ones(1000))
    address = weight.data_ptr()
    cache.get((weight, ), 7, lambda: 'first')
    weight.data = torch.zeros(1)
    assert all(torch.ones(1000).data_ptr() != address for _ in range(10))
    assert cache.get((weight, ), 7, lambda: 'second') == 'second'


def test_weights_of_inference_mode_serve_on_a_cpu_only(monkeypatch):
    with torch.inference_mode():
        layer = ParC2d(4, 'H', 5).eval()
    x = torch.randn(1, 4, 6, 7)
    with torch.inference_mode():
        expected = layer(x)
        assert len(layer._cache) == 1
        twin = copy.deepcopy(layer)
        monkeypatch.setattr(kernel_cache, '_is_read_freely', lambda t: False)
        assert torch.equal(twin(x), expected) and len(twin._cache) == 0
        twin.weight.mul_(2)
        assert not torch.equal(twin(x), expected)


def test_copies_and_pickles_are_empty():
    cache = KernelCache(max_entries=3)
    cache.get((torch.ones(1), ), 7, lambda: 1)
    for twin in (copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(twin) == 0 and twin.max_entries == 3
    assert len(cache) == 1


def test_examples():
    tested = doctest.testmod(kernel_cache)
    assert tested.attempted and not tested.failed
