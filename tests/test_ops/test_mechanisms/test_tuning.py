"""The measured choice between the forms of an operator, with a clock that stands in for the device's."""
import json
import logging

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from plugconv_mm.errors import DataError
from plugconv_mm.ops import GlobalLocalFilter, ParC2d, autotune
from plugconv_mm.ops.mechanisms import tuning
from plugconv_mm.ops.mechanisms.tuning import fastest
from plugconv_mm.ops.parc import choice

FORMS = {'plain': lambda x: 2 * x, 'sum': lambda x: x + x}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Milliseconds of each form by name, in the order of the forms; nothing is known beforehand."""
    for name, value in (('_known', {}), ('_read', set()), ('_warned', set())):
        monkeypatch.setattr(tuning, name, value)
    monkeypatch.delenv(tuning.ENVIRONMENT_VARIABLE, raising=False)
    times = {'plain': 3., 'sum': 1., 'spatial': 9., 'fft': 5., 'gemm': 7., 'matrices': 1.}
    measured = []

    def stand_in(calls, device):
        measured.append(tuple(calls))
        return {name: times[name] for name in calls}

    monkeypatch.setattr(tuning, '_times', stand_in)
    times['measured'] = measured
    return times


def test_the_fastest_is_taken_and_measured_once(clock, caplog):
    x = torch.rand(3)
    assert fastest('twice', 'three', FORMS, [x], False) is None  # nothing is measured unless it is asked for
    with caplog.at_level(logging.INFO, 'plugconv_mm'), autotune():
        assert [fastest('twice', 'three', FORMS, [x], False) for _ in range(3)] == ['sum'] * 3
        clock['sum'] = 9.
        assert fastest('twice', 'four', FORMS, [x], False) == 'plain'
    assert fastest('twice', 'three', FORMS, [x], False) == 'sum'  # and is known from then on
    assert fastest('twice', 'five', FORMS, [x], False) is None
    assert len(clock['measured']) == 2
    assert [record.message for record in caplog.records] == [
        'twice: sum is the fastest (plain 3 ms, sum 1 ms) for three',
        'twice: plain is the fastest (plain 3 ms, sum 9 ms) for four']


def test_the_switch_of_cudnn(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    assert fastest('twice', 'three', FORMS, [torch.rand(3)], False) == 'sum'


def _fails(x):
    raise RuntimeError('no such kernel')


@pytest.mark.parametrize('form, message', [
    (lambda x: 2.1 * x, r'differs from the reference form by \d'), (_fails, 'RuntimeError: no such kernel'),
    (lambda x: (2 * x)[None], r'gives \(1, 3\) of torch.float32, not \(3,\)'),
    (lambda x: (2 * x).double(), 'torch.float64'), (lambda x: 2 * x / torch.zeros(3), 'differs'),
    (lambda x: 2 * x.detach() + x - x.detach(), 'differs')],
    ids=['output', 'raises', 'shape', 'type', 'not finite', 'gradient'])
def test_a_form_that_disagrees_is_put_out_with_one_warning(form, message):
    x, forms = torch.full((3, ), 2., requires_grad=True), dict(FORMS, sum=form)
    with autotune():
        with pytest.warns(UserWarning, match=f"'sum' of twice is put out: .*{message}") as warned:
            assert fastest('twice', 'three', forms, [x], True) == 'plain'
            assert fastest('twice', 'four', forms, [x], True) == 'plain'
    assert len(warned) == 1


def test_nothing_is_concluded_from_a_map_that_is_not_finite(clock):
    with autotune():
        assert fastest('twice', 'three', FORMS, [torch.tensor([1., torch.nan])], False) is None
        assert fastest('twice', 'three', FORMS, [torch.ones(2)], False) == 'sum'


def test_measuring_leaves_no_trace():
    x = torch.rand(3, requires_grad=True)
    grad = x.grad = torch.ones(3)
    state, seen = torch.get_rng_state(), []
    with autotune(), torch.autograd.graph.saved_tensors_hooks(seen.append, lambda t: t):
        fastest('square', 'three', dict(plain=lambda x: x * x, sum=lambda x: x**2), [x], True)
    assert x.grad is grad and grad.eq(1).all() and not seen
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()


@pytest.mark.parametrize('where', ['deterministic', 'distributed', 'meta', 'fake', 'vmap', 'export'])
def test_where_the_model_decides(where, monkeypatch, clock):
    x, layer = torch.rand(1, 4, 8, 8), ParC2d(4, 'H', meta_size=5).eval()
    with autotune(), torch.no_grad():
        if where == 'deterministic':
            monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
            layer(x)
        elif where == 'distributed':
            monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
            monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
            layer(x)
        elif where == 'meta':
            layer.to('meta')(x.to('meta'))
        elif where == 'fake':
            with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
                layer.train()(mode.from_tensor(x))
        elif where == 'vmap':
            torch.func.vmap(lambda x: fastest('twice', 'three', FORMS, [x], False) or x)(x)
        else:
            torch.export.export(layer, (x, ))
    assert not clock['measured']


def test_processes_that_train_together_use_the_file(tmp_path, monkeypatch, clock):
    monkeypatch.setenv(tuning.ENVIRONMENT_VARIABLE, str(tmp_path / 'choices.json'))
    with autotune():
        fastest('twice', 'three', FORMS, [torch.rand(3)], False)
        tuning._known.clear()
        tuning._read.clear()
        monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
        monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
        assert fastest('twice', 'three', FORMS, [torch.rand(3)], False) == 'sum'
        assert fastest('twice', 'four', FORMS, [torch.rand(3)], False) is None
    assert len(clock['measured']) == 1


def test_the_file_is_merged_and_holds_for_its_machine(tmp_path, monkeypatch, clock):
    path, x = tmp_path / 'choices.json', torch.rand(3)
    monkeypatch.setenv(tuning.ENVIRONMENT_VARIABLE, str(path))
    here = tuning.machine(x.device)
    path.write_text(json.dumps({here: {'twice three': 'plain'}, 'another': {'twice four': 'plain'}}))
    assert fastest('twice', 'three', FORMS, [x], False) == 'plain'  # from the file alone
    path.write_text(json.dumps({here: {'twice six': 'sum'}}))  # by another process meanwhile
    with autotune():
        assert fastest('twice', 'four', FORMS, [x], False) == 'sum'
    assert json.loads(path.read_text()) == {here: {'twice four': 'sum', 'twice six': 'sum'}}
    assert fastest('twice', 'three', {'sum': FORMS['sum']}, [x], False) is None  # a form that is no longer there
    assert f'{torch.get_num_threads()} threads' in here and torch.__version__ in here


@pytest.mark.parametrize('text', ['{', '[]', '{"machine": 3}', '{"machine": {"twice": 3}}'])
def test_a_broken_file_is_named_and_left_alone(tmp_path, monkeypatch, text):
    path = tmp_path / 'choices.json'
    path.write_text(text)
    monkeypatch.setenv(tuning.ENVIRONMENT_VARIABLE, str(path))
    with autotune(), pytest.raises(DataError, match='choices.json, which PLUGCONV_TUNING names, is not a file of'):
        fastest('twice', 'three', FORMS, [torch.rand(3)], False)
    assert path.read_text() == text


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('best', ['spatial', 'fft', 'gemm'])
def test_parc_takes_the_measured_backend(best, training, clock):
    clock[best] = 0.
    layer, x = ParC2d(4, 'H', meta_size=5).train(training), torch.rand(2, 4, 8, 8)
    with torch.set_grad_enabled(training):
        expected = layer(x)
        with autotune():
            y = layer(x)
            assert layer.select_backend(x) == best
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)


def test_parc_does_not_try_what_is_hopeless(clock, monkeypatch):
    monkeypatch.setattr(choice, 'expected_times', lambda workload: dict(spatial=30., fft=1., gemm=2.))
    with autotune(), torch.no_grad():
        ParC2d(4, 'H', meta_size=5)(torch.rand(1, 4, 8, 8))
    assert clock['measured'] == [('fft', 'gemm')]


def test_the_global_filter_takes_the_measured_form(clock):
    layer, x = GlobalLocalFilter(4, 5, 3), torch.rand(1, 4, 8, 9)
    expected = layer(x)
    gradients = torch.autograd.grad(expected.sum(), list(layer.parameters()))
    with autotune():
        y = layer(x)
    assert clock['measured'] == [('fft', 'matrices')] and set(tuning._known[tuning.machine(x.device)].values()) == {
        'matrices'}
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
    for got, want in zip(torch.autograd.grad(y.sum(), list(layer.parameters())), gradients, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('reentrant', [False, True])
def test_recomputed_activations_choose_alike(reentrant):
    layer, x = ParC2d(4, 'H', meta_size=5), torch.rand(1, 4, 8, 8, requires_grad=True)
    with autotune():
        y = checkpoint(layer, x, use_reentrant=reentrant)
    y.sum().backward()
    assert x.grad is not None and layer.weight.grad is not None


def test_real_times(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(tuning, '_known', {})
    slow = dict(plain=lambda x: sum(x for _ in range(2000)) / 1000, sum=FORMS['sum'])
    with autotune():
        assert fastest('twice', 'ten thousand', slow, [torch.ones(10000)], False) == 'sum'
