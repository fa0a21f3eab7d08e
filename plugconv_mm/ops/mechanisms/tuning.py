"""A choice among the forms of an operator by their measured times on the device at hand.

Measuring is on within :func:`autotune` and while ``torch.backends.cudnn.benchmark`` is set. An operator names its forms
and asks :func:`fastest`, which answers None where nothing was measured: then the operator's cost model decides.
"""
import contextlib
import functools
import logging
import platform
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from plugconv_mm.ops.mechanisms.stopwatch import milliseconds
from plugconv_mm.ops.mechanisms.tracing import is_tracing
from plugconv_mm.ops.mechanisms.tuning_file import Choices, tuning_file

_functorch_level = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]
_logger = logging.getLogger(__name__)
# Candidates that a model expects to take so many times the best one's time are not timed.
_HOPELESS = 20
# Largest difference from the reference form, relative to its largest value. Devices may compute float32 with the
# mantissa of a 16-bit type.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_TOLERANCE_OF_FAST_FLOAT32 = 1e-2
# What a form raises that does not work here, for lack of memory among others.
_FAILURES = (RuntimeError, TypeError, ValueError)

_lock = threading.RLock()
_contexts = 0
_choices = Choices()


@contextlib.contextmanager
def autotune() -> Iterator[None]:
    """Measure the forms of operators within this context, and keep the fastest of each for the process.

    The first call of each new workload (map size, batch, data type, layout, training or inference) times the operator's
    forms on the device, a few calls of each. A form is taken only if its output agrees with that of the operator's
    reference form; one that raises or disagrees is left out with a warning. The choice holds for all later calls,
    outside the context too, and is logged at the level INFO. ``torch.backends.cudnn.benchmark = True``, in a config
    ``env_cfg=dict(cudnn_benchmark=True)``, has the same effect for as long as it is set.

    With the environment variable ``PLUGCONV_TUNING=file.json``, choices are read from that file at first use, and
    written to it as they are made.

    Nothing is measured while a graph is recorded (torch.compile, torch.export, ONNX, CUDA graphs), on devices other
    than a CPU or CUDA, and where several processes train together: these take the choices of the file, or those of the
    cost models, so that all of them choose alike. Run one process first to make the file. Under
    ``torch.use_deterministic_algorithms(True)`` the cost models decide.

    Raises:
        TuningFileError: In the first call of an operator, if the file is not one of choices.
        OutputError: Likewise, if it cannot be written.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import ParC2d, autotune
        >>> layer, x = ParC2d(8, 'H').eval(), torch.randn(1, 8, 12, 10)
        >>> with autotune(), torch.inference_mode():
        ...     y = layer(x)
        >>> layer.select_backend(x) in ('spatial', 'fft', 'gemm')
        True
    """
    global _contexts
    with _lock:
        _contexts += 1
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1


def may_answer() -> bool:
    """Whether :func:`fastest` can have an answer; where it cannot, operators need not describe their forms to it."""
    if is_tracing() or torch.are_deterministic_algorithms_enabled():
        return False
    return _is_on() or bool(_choices.made) or tuning_file() is not None


def _is_on() -> bool:
    return _contexts > 0 or torch.backends.cudnn.benchmark


def fastest(operator: str, workload: Hashable, candidates: Mapping[str, Callable[..., Tensor]],
            inputs: Sequence[Tensor | None], training: bool, expected: Mapping[str, float] | None = None) -> str | None:
    """The name of the candidate that was measured to be the fastest; None if the operator's cost model is to decide.

    Args:
        operator: Name of the operator.
        workload: All that times depend on: sizes, data type, layout. Its repr tells it apart from others, also in
            another process.
        candidates: Functions of `inputs` that compute the operator in its forms. The first is the reference form.
        inputs: A tensor first; then tensors or None. Candidates see aliases of them.
        training: Whether to time the gradients of the inputs that require them as well.
        expected: Times that a cost model expects, in any unit; hopeless candidates are not timed.

    Raises:
        TuningFileError: If the file of ``PLUGCONV_TUNING`` is not one of choices.
        OutputError: If it cannot be written.
    """
    if not may_answer():
        return None
    path, measuring = tuning_file(), _is_on()
    given = [t for t in inputs if t is not None]
    device = given[0].device
    # Subclasses of tensors may have no values, or be spread over devices.
    if device.type not in ('cpu', 'cuda') or any(type(t) not in (Tensor, nn.Parameter) for t in given):
        return None
    wanted = tuple(i for i, t in enumerate(inputs) if training and t is not None and t.requires_grad)
    key = _environment(device, torch.get_num_threads()), _text(operator, workload, wanted)
    together = _are_several_processes()
    known = _choices.find(path, key, read_only=together)
    if known in candidates:
        return known
    if not measuring or together or not _may_measure(device):
        return None
    with _lock:
        known = _choices.find(path, key)  # another thread may have measured it meanwhile
        if known in candidates:
            return known
        measured = _measure(operator, key[1], candidates, inputs, bool(wanted), expected or {})
        if measured is None:
            return None
        _choices.add(path, key, measured)
        return measured


@functools.lru_cache(4096)
def _text(operator: str, workload: Hashable, wanted: tuple[int, ...]) -> str:
    return f'{operator} {workload!r} ' + (f'gradients of {", ".join(map(str, wanted))}' if wanted else 'inference')


@functools.lru_cache
def _environment(device: torch.device, threads: int) -> str:
    """Name of the device, version of torch and number of threads."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else processor()
    return f'{name}, torch {torch.__version__}, {threads} threads'


def processor() -> str:
    """The name of the CPU."""
    with contextlib.suppress(OSError), open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
        for line in file:
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def _are_several_processes() -> bool:
    d = torch.distributed
    return d.is_available() and d.is_initialized() and d.get_world_size() > 1


def _may_measure(device: torch.device) -> bool:
    """Whether calls can be timed: not while operations are counted or faked, transformed, or captured in a graph."""
    return not (_get_current_dispatch_mode() is not None
                or _functorch_level() is not None
                or (device.type == 'cuda' and torch.cuda.is_current_stream_capturing()))


def _measure(operator: str, text: str, candidates: Mapping[str, Callable[..., Tensor]],
             inputs: Sequence[Tensor | None], training: bool, expected: Mapping[str, float]) -> str | None:
    """The fastest candidate that agrees with the first; None where that has no finite output to compare with."""
    device = next(t.device for t in inputs if t is not None)
    with _without_trace(inputs, device, training) as aliases:
        wanted = [t for t in aliases if t is not None and t.requires_grad]

        def run(name: str) -> Tensor:
            y = candidates[name](*aliases)
            if training:
                torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)
            return y.detach()

        names = list(candidates)
        try:
            reference = run(names[0])
        except _FAILURES as error:
            warnings.warn(f'{operator}: nothing is measured, because the reference form {names[0]!r} '
                          f'{_raised(error)}: {text}', RuntimeWarning, stacklevel=2)
            return None
        size = reference.abs().max().item() if reference.numel() else 0
        if not size < float('inf'):  # nor NaN
            return None
        hopeless = _HOPELESS * min(expected.values(), default=float('inf'))
        runs = {}
        for name in names:
            if expected.get(name, 0) > hopeless:
                continue
            reason = '' if name == names[0] else _fault(run, name, reference, size)
            if reason:
                warnings.warn(f'{operator}: the form {name!r} is not taken, because it {reason}: {text}',
                              RuntimeWarning, stacklevel=2)
            else:
                runs[name] = functools.partial(run, name)
        del reference
        times = milliseconds(runs, device)
    chosen = min(times, key=times.__getitem__)
    _logger.info('%s: %s (%s)', text, chosen, ', '.join(f'{name} {t:.3f} ms' for name, t in times.items()))
    return chosen


def _fault(run: Callable[[str], Tensor], name: str, reference: Tensor, size: float) -> str:
    """What is wrong with a candidate; empty if its output is that of the reference."""
    try:
        y = run(name)
    except _FAILURES as error:
        return _raised(error)
    if y.shape != reference.shape or y.dtype != reference.dtype:
        return f'gave {tuple(y.shape)} of {y.dtype} and not {tuple(reference.shape)} of {reference.dtype}'
    difference = (y - reference).abs().max().item() if y.numel() else 0.
    if difference <= _tolerance(reference) * size:
        return ''
    return f'differs from the reference form by {difference:.3g} at values up to {size:.3g}'


def _raised(error: Exception) -> str:
    return f'raised {type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _tolerance(y: Tensor) -> float:
    if y.dtype == torch.float32 and (y.is_cuda or torch.get_float32_matmul_precision() != 'highest'):
        return _TOLERANCE_OF_FAST_FLOAT32
    return _TOLERANCE[y.dtype]


@contextlib.contextmanager
def _without_trace(inputs: Sequence[Tensor | None], device: torch.device,
                   training: bool) -> Iterator[list[Tensor | None]]:
    """Aliases of the inputs, and a state in which calls leave neither gradients nor random numbers behind."""
    kind = device.type
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if kind == 'cuda' else []))
        stack.enter_context(torch.set_grad_enabled(training))
        # Casts of the aliases are not kept for the rest of the region.
        stack.enter_context(torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind),
                                           cache_enabled=False))
        # Activation checkpointing counts what is kept for gradients.
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t))
        yield [None if t is None else t.detach().requires_grad_(training and t.requires_grad) for t in inputs]
