"""The measured choice among forms, with a clock that forms move on themselves."""
import io
import json
import logging
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from plugconv_mm.errors import OutputError, OutputFolderNotFoundError, TuningFileError
from plugconv_mm.ops import GlobalLocalFilter, ParC2d, ParCHW2d, autotune, global_local_filter, parc_conv2d
from plugconv_mm.ops.mechanisms import stopwatch, tuning
from plugconv_mm.ops.mechanisms.tuning import fastest
from plugconv_mm.ops.mechanisms.tuning_file import Choices
from plugconv_mm.ops.parc.backends import BACKENDS


class Clock:
    """A clock that stands still but for the forms it makes; it notes the calls of each."""

    def __init__(self):
        self.now, self.calls = 0., []

    def __call__(self):
        return self.now

    def form(self, name, seconds, function=lambda *inputs: inputs[0] * 2):
        def call(*inputs):
            self.calls.append(name)
            self.now += seconds
            return function(*inputs)
        return call

    def forms(self, **seconds):
        return {name: self.form(name, s) for name, s in seconds.items()}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stopwatch, 'time', SimpleNamespace(perf_counter=clock))
    return clock


@pytest.fixture
def file(tmp_path, monkeypatch):
    file = tmp_path / 'choices.json'
    monkeypatch.setenv('PLUGCONV_TUNING', str(file))
    return file


def another_process(monkeypatch):
    monkeypatch.setattr(tuning, '_choices', Choices())


def several_processes(monkeypatch):
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)


def ask(forms, workload='7x7', x=None, training=False, **kwargs):
    x = torch.ones(3) if x is None else x
    return fastest('operator', workload, forms, (x, None), training, **kwargs)


# The choice


@pytest.mark.parametrize('quickest', ['a', 'b', 'c'])
def test_the_fastest_is_taken_and_kept(quickest, clock, caplog):
    caplog.set_level(logging.INFO, 'plugconv_mm')
    forms = clock.forms(**{name: 0.001 if name == quickest else 0.002 for name in 'abc'})
    with autotune():
        assert ask(forms) == quickest
        assert set(clock.calls) == set('abc') and len(clock.calls) <= 3 * 21
        clock.calls.clear()
        assert ask(forms) == quickest
    assert ask(forms) == quickest and not clock.calls  # outside the context, too
    record, = caplog.records
    assert record.levelno == logging.INFO and f"operator '7x7' inference: {quickest}" in record.getMessage()


def test_nothing_is_measured_unless_asked_for(clock):
    assert ask(clock.forms(a=2, b=1)) is None and not clock.calls
    with autotune(), autotune():
        pass
    assert ask(clock.forms(a=2, b=1)) is None and not clock.calls


def test_the_benchmark_of_cudnn_turns_it_on(clock, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    assert ask(clock.forms(a=2, b=1)) == 'b'


def test_a_moment_of_slowness_does_not_decide(clock):
    hiccups = iter([0.001, 1])  # the first call is not timed

    def steady(x, _):
        clock.now += next(hiccups, 0.001)
        return x * 2
    with autotune():
        assert ask({'a': clock.form('a', 0.003), 'b': steady}) == 'b'


def test_slow_forms_are_called_little(clock):
    with autotune():
        ask(clock.forms(a=10, b=30, c=100))
    assert [clock.calls.count(name) for name in 'abc'] == [3, 3, 3]  # the first, untimed, and two more


def test_workloads_are_told_apart(clock, monkeypatch):
    forms, other = clock.forms(a=2, b=1), clock.forms(a=1, b=2)
    x, trained = torch.ones(3), torch.ones(3, requires_grad=True)
    with autotune():
        assert ask(forms, x=x) == 'b'
        assert ask(other, x=x, workload='14x14') == 'a'
        assert ask(other, x=trained, training=True) == 'a'
        assert ask(forms, x=trained) == 'b'
        assert fastest('operator', '7x7', forms, (trained, trained), True) == 'b'  # gradients of more inputs
        assert fastest('another operator', '7x7', other, (x, ), False) == 'a'
        monkeypatch.setattr(torch, 'get_num_threads', lambda: 77)
        assert ask(other, x=x) == 'a'
        monkeypatch.undo()


def test_gradients_are_timed_in_training(clock):
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            clock.now += 10
            return grad * 2
    forms = {'quick': clock.form('quick', 1, lambda x, _: Slow.apply(x)), 'even': clock.form('even', 2)}
    x = torch.ones(3, requires_grad=True)
    with autotune():
        assert ask(forms, x=x, training=True) == 'even' and ask(forms, x=x) == 'quick'


def test_hopeless_forms_are_not_timed(clock):
    forms = clock.forms(reference=1, b=2, c=3)
    with autotune():
        assert ask(forms, expected=dict(reference=300, b=10, c=201)) == 'b'
    assert clock.calls.count('reference') == 1 and 'c' not in clock.calls  # the others are held against the reference


@pytest.mark.parametrize('wrong, says', [
    (lambda x, _: x * 2.01, 'differs from the reference form by'),
    (lambda x, _: x * float('nan'), 'differs from the reference form by nan'),
    (lambda x, _: x[:2] * 2, r'gave \(2,\) of torch.float32 and not \(3,\)'),
    (lambda x, _: x.double() * 2, 'gave .* of torch.float64'),
    (lambda x, _: x @ torch.ones(5), 'raised RuntimeError: .*size')], ids=['value', 'nan', 'shape', 'type', 'raises'])
def test_wrong_forms_are_put_out_with_one_warning(wrong, says, clock):
    forms = {**clock.forms(a=2, b=3), 'wrong': clock.form('wrong', 1, wrong)}
    with autotune():
        with pytest.warns(RuntimeWarning, match=f"operator: the form 'wrong' is not taken, because it {says}") as said:
            assert ask(forms) == 'a'
        assert len(said) == 1 and clock.calls.count('wrong') == 1
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert ask(forms) == 'a'


@pytest.mark.parametrize('dtype, relative', [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_rounding_is_no_disagreement(dtype, relative, clock):
    forms = {'a': clock.form('a', 2), 'b': clock.form('b', 1, lambda x, _: x * (2 + 2 * relative))}
    with autotune():
        assert ask(forms, x=torch.ones(3, dtype=dtype)) == 'b'
        with pytest.warns(RuntimeWarning, match='differs'):
            forms['b'] = clock.form('b', 1, lambda x, _: x * (2 + 1e4 * relative))
            assert ask(forms, 'other', x=torch.ones(3, dtype=dtype)) == 'a'


def test_without_a_finite_reference_the_model_decides(clock):
    forms = clock.forms(a=2, b=1)
    with autotune():
        assert ask(forms, x=torch.tensor([1, float('inf')])) is None
        with pytest.warns(RuntimeWarning, match="nothing is measured, because the reference form 'a' raised"):
            assert ask({'a': lambda *_: torch.ones(2) @ torch.ones(3), 'b': forms['b']}) is None
        assert ask(forms) == 'b'  # nothing was kept of that


# Where nothing is measured


def test_deterministic_algorithms_leave_it_to_the_model(clock):
    with autotune():
        assert ask(clock.forms(a=2, b=1)) == 'b'
        torch.use_deterministic_algorithms(True)
        try:
            assert ask(clock.forms(a=2, b=1)) is None
        finally:
            torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('record', [
    lambda m, x: torch.onnx.export(m, (x, ), io.BytesIO(), dynamo=False), lambda m, x: torch.export.export(m, (x, )),
    lambda m, x: torch.compile(m, backend='eager', fullgraph=True)(x), lambda m, x: m.to('meta')(x.to('meta'))],
    ids=['onnx', 'export', 'compile', 'meta'])
@pytest.mark.parametrize('layer', [lambda: ParCHW2d(8, 7), lambda: GlobalLocalFilter(8, 7, 4)], ids=['parc', 'filter'])
def test_nothing_is_measured_in_a_graph(record, layer, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(tuning, '_measure', None)  # to call it would raise
    with autotune(), torch.no_grad():
        record(layer().eval().requires_grad_(False), torch.randn(2, 8, 6, 9))


def test_nothing_is_measured_in_transformed_functions(clock):
    forms = clock.forms(a=2, b=1)
    with autotune():
        for transformed in (torch.vmap(lambda x: x * (ask(forms, x=x) is None)),
                            torch.func.grad(lambda x: x.sum() * (ask(forms, x=x) is None))):
            assert torch.equal(transformed(torch.ones(3)), torch.ones(3)) and not clock.calls
        torch.jit.trace(lambda x: x * (ask(forms, x=x) is None), torch.ones(3), check_trace=False)
    assert not clock.calls


def test_nothing_is_measured_with_fake_or_counted_operations(clock):
    forms, x = clock.forms(a=2, b=1), torch.ones(3)
    with autotune():
        with FakeTensorMode():
            assert ask(forms, x=torch.ones(3)) is None
            assert ask(forms, x=torch.ones(3, device='cuda')) is None
        with FlopCounterMode(display=False):
            assert ask(forms, x=x) is None
        assert not clock.calls
        assert ask(forms, x=x) == 'b'
        with FlopCounterMode(display=False):
            assert ask(forms, x=x) == 'b'  # what is known is counted


def test_nothing_is_measured_while_a_cuda_graph_is_captured(monkeypatch):
    for capturing in (True, False):
        monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda capturing=capturing: capturing)
        assert tuning._may_measure(torch.device('cuda', 0)) != capturing
        assert tuning._may_measure(torch.device('cpu'))


def test_several_processes_take_the_choices_of_the_file_alone(clock, file, monkeypatch):
    forms = clock.forms(a=2, b=1)
    with autotune():
        assert ask(forms, 'of the file') == 'b'
        another_process(monkeypatch)
        clock.calls.clear()
        several_processes(monkeypatch)
        assert ask(forms, 'of the file') == 'b'
        assert ask(forms, 'other') is None and not clock.calls
        monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 1)
        assert ask(forms, 'other') == 'b'
        several_processes(monkeypatch)
        assert ask(forms, 'other') is None  # another process might have measured otherwise


# The file


def test_choices_go_through_the_file(clock, file, monkeypatch):
    with autotune():
        assert ask(clock.forms(a=2, b=1)) == 'b'
    content = json.loads(file.read_text())
    (environment, choices), = content['choices'].items()
    assert choices == {"operator '7x7' inference": 'b'}
    assert torch.__version__ in environment and f'{torch.get_num_threads()} threads' in environment
    another_process(monkeypatch)
    assert ask(clock.forms(a=1, b=2)) == 'b'  # read, without measuring
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 77)
    assert ask(clock.forms(a=1, b=2)) is None


def test_a_choice_that_is_no_candidate_is_measured_anew(clock, file, monkeypatch):
    with autotune():
        ask(clock.forms(a=2, b=1))
        another_process(monkeypatch)
        assert ask(clock.forms(a=2, c=1)) == 'c'


def test_what_others_wrote_stays(clock, file, monkeypatch):
    forms = clock.forms(a=2, b=1)
    with autotune():
        ask(forms, 'first')
        ours = tuning._choices
        another_process(monkeypatch)
        ask(forms, 'of another process')
        monkeypatch.setattr(tuning, '_choices', ours)
        ask(forms, 'second')
    choices, = json.loads(file.read_text())['choices'].values()
    assert {text.split("'")[1] for text in choices} == {'first', 'of another process', 'second'}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize('content', [
    b'', b'{"format": "plugconv_mm tun', b'[]', b'{}', b'\xff', b'{"format": "plugconv_mm tuning 2", "choices": {}}',
    b'{"format": "plugconv_mm tuning 1", "choices": {"cpu": {"parc": 3}}}',
    b'{"format": "plugconv_mm tuning 1", "choices": {"cpu": []}}'], ids=repr)
def test_a_broken_file_is_an_error_and_stays(content, clock, file):
    file.write_bytes(content)
    with autotune(), pytest.raises(TuningFileError, match='PLUGCONV_TUNING names, .* remove it to measure anew'):
        ask(clock.forms(a=2, b=1))
    assert not clock.calls and file.read_bytes() == content
    with pytest.raises(TuningFileError):  # read without measuring
        ask(clock.forms(a=2, b=1))


def test_a_file_that_breaks_meanwhile_stays(clock, file):
    with autotune():
        ask(clock.forms(a=2, b=1))
        file.write_bytes(b'mine')
        with pytest.raises(TuningFileError):
            ask(clock.forms(a=2, b=1), 'other')
    assert file.read_bytes() == b'mine'


def test_a_file_that_cannot_be_written_is_told_before_measuring(clock, tmp_path, monkeypatch):
    for path, error in ((tmp_path, OutputError), (tmp_path / 'none' / 'file.json', OutputFolderNotFoundError)):
        monkeypatch.setenv('PLUGCONV_TUNING', str(path))
        with autotune(), pytest.raises(error):
            ask(clock.forms(a=2, b=1))
    assert not clock.calls


# No trace


def test_neither_gradients_nor_random_numbers_are_left(clock):
    weight, x = nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True)
    forms = {name: clock.form(name, 1, lambda x, w: (x * w + 0 * torch.rand(3)).cumsum(0)) for name in 'ab'}
    y = x * 1  # no leaf
    hooked = []
    y.register_hook(hooked.append)
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    with autotune():
        assert fastest('operator', 7, forms, (y, weight), True) == 'a'
    assert torch.equal(torch.rand(5), expected)
    assert weight.grad is None and x.grad is None and not hooked and torch.is_grad_enabled()
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones(3))


def test_states_are_those_of_the_call(clock):
    seen = []

    def look(x, _):
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled('cpu'),
                     torch.is_autocast_cache_enabled(), (x @ x.T).dtype))
        return x * 1
    forms = {'a': clock.form('a', 1, look), 'b': clock.form('b', 1, look)}
    x = torch.ones(2, 2, requires_grad=True)
    with autotune():
        with torch.inference_mode():
            ask(forms, 1, x)
            assert set(seen) == {(True, False, False, False, torch.float32)} and torch.is_inference_mode_enabled()
        seen.clear()
        with torch.autocast('cpu', torch.bfloat16, cache_enabled=True):  # a failed export may have left it off
            ask(forms, 2, x, training=True)
            assert set(seen) == {(False, True, True, False, torch.bfloat16)}
            assert torch.is_autocast_cache_enabled() and (x @ x).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled('cpu') and torch.is_grad_enabled()


@pytest.mark.parametrize('fails', [False, True])
def test_the_context_ends_with_its_block(fails, clock):
    with pytest.raises(KeyError) if fails else warnings.catch_warnings(), autotune():
        if fails:
            raise KeyError
    assert ask(clock.forms(a=2, b=1)) is None


@pytest.mark.parametrize('reentrant', [False, True])
def test_activation_checkpointing_keeps_its_count(reentrant):
    layer, x = ParC2d(4, 'H', 7), torch.randn(2, 4, 9, 6, requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    with autotune():
        y = checkpoint(layer, x, use_reentrant=reentrant).square().sum()
    y.backward()
    for got, want in zip([x.grad, *(p.grad for p in layer.parameters())], expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


# The operators


@pytest.fixture
def parc_clock(clock, monkeypatch):
    """Moves the clock in each product of ParC by the time given for its form."""
    clock.times = dict.fromkeys(BACKENDS, 1)
    for name, form in BACKENDS.items():
        def apply(*args, name=name, apply=form.apply):
            clock.now += clock.times[name]
            clock.calls.append(name)
            return apply(*args)
        monkeypatch.setattr(form, 'apply', apply)
    return clock


@pytest.mark.parametrize('quickest', BACKENDS)
@pytest.mark.parametrize('mode', ['training', 'gradients in evaluation', 'evaluation', 'function'])
def test_parc_takes_the_measured_backend(quickest, mode, parc_clock):
    layer, x = ParC2d(6, 'H', 7).train(mode == 'training'), torch.randn(2, 6, 12, 9)
    parc_clock.times[quickest] = 0.1
    with torch.set_grad_enabled(mode in ('training', 'gradients in evaluation')):
        def run():
            if mode == 'function':
                return parc_conv2d(x, layer.weight, layer.bias, layer.position_embedding)
            return layer(x)
        expected = run()
        with autotune():
            run()
        parc_clock.calls.clear()
        y = run()
        assert set(parc_clock.calls) == {quickest}
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        assert mode == 'function' or layer.select_backend(x) == quickest
        assert len(layer._cache) <= 2  # the model's form and the measured one
        with torch.no_grad():
            layer.weight.mul_(2)
            layer.eval()
            torch.testing.assert_close(run(), parc_conv2d(
                x, layer.weight, layer.bias, layer.position_embedding, backend='fft'), rtol=1e-5, atol=1e-5)


def test_parc_in_evaluation_is_timed_without_its_kernel(parc_clock, monkeypatch):
    """The kernel is kept in use, so what its form costs to make does not count."""
    gemm, prepare = BACKENDS['gemm'], BACKENDS['gemm'].prepare

    def slow(*args):
        parc_clock.now += 100
        return prepare(*args)
    monkeypatch.setattr(gemm, 'prepare', slow)
    parc_clock.times['gemm'] = 0.1
    layer, x = ParC2d(6, 'W', 7).eval(), torch.randn(2, 6, 12, 9)
    with autotune():
        with torch.inference_mode():
            layer(x)
            assert layer.select_backend(x) == 'gemm'
        assert layer.train().select_backend(x) != 'gemm'


def test_a_forced_backend_stays(parc_clock):
    parc_clock.times['gemm'] = 0.1
    with autotune(), torch.no_grad():
        ParC2d(6, 'W', 7, backend='spatial').eval()(torch.randn(2, 6, 12, 9))
    assert set(parc_clock.calls) == {'spatial'}


@pytest.mark.parametrize('quickest', ['fft', 'matrices'])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('size', [(6, 9), (7, 4), (1, 1)])
def test_the_global_filter_takes_the_measured_form(quickest, training, dtype, size, clock, monkeypatch):
    forms = {name: clock.form(name, 0.1 if name == quickest else 1, form)
             for name, form in global_local_filter._FORMS.items()}
    monkeypatch.setattr(global_local_filter, '_FORMS', forms)
    layer, x = GlobalLocalFilter(8, 7, 4).to(dtype).train(training), torch.randn(2, 8, *size, dtype=dtype)
    nn.init.normal_(layer.complex_weight)
    x.requires_grad_(training)
    with torch.inference_mode(not training), torch.set_grad_enabled(training):
        expected = layer(x)
        assert clock.calls == ['fft']
        with autotune():
            layer(x)
        clock.calls.clear()
        y = layer(x)
        assert clock.calls == [quickest]
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    if training:
        for got, want in zip(*(torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])
                               for out in (y, expected)), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_a_gpu_is_timed_between_events(monkeypatch):
    """Without a GPU: that the call lies between two events of its stream, and is waited for."""
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append('record')

        def synchronize(self):
            done.append('wait')

        def elapsed_time(self, end):
            return 7.
    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'device', lambda device: warnings.catch_warnings())
    assert stopwatch.one_call(lambda: done.append('call'), torch.device('cuda', 0)) == 7
    assert done == ['record', 'call', 'record', 'wait']
