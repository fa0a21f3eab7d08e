"""A choice between the forms of an operator that is measured on the device itself.

Where a choice has to be made at once, an operator asks a model of its cost. Inside :func:`autotune`, or with
``torch.backends.cudnn.benchmark`` on, the forms are timed instead, once for each workload. What was measured is kept,
and written to the file that the environment variable ``PLUGCONV_TUNING`` names.
"""
import contextlib
import functools
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingModuleSource]
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.errors import DataError
from plugconv_mm.ops.mechanisms.tracing import is_tracing

ENVIRONMENT_VARIABLE = 'PLUGCONV_TUNING'
# Largest difference of a form from the reference form, relative to the greatest value.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
HALF_TOLERANCE = 5e-2
CALLS = 4

_logger = logging.getLogger('plugconv_mm')
_depth = 0
_known: dict[str, dict[str, str]] = {}  # by machine, then by workload
_read: set[str] = set()
_warned: set[tuple[str, str]] = set()

Form = Callable[..., Tensor]


@contextlib.contextmanager
def autotune() -> Iterator[None]:
    """Time the forms of each operator whose workload is met for the first time, and take the fastest from then on.

    ``torch.backends.cudnn.benchmark = True`` (``env_cfg=dict(cudnn_benchmark=True)`` of a config) does the same. The
    model of costs decides as before: under a tracer, in a compiled graph, while a CUDA graph is captured, with
    ``torch.use_deterministic_algorithms``; and where several processes train together, which have to choose alike and
    therefore only use what ``PLUGCONV_TUNING``, a file that one process has made before, has on them.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import ParC2d, autotune
        >>> layer, x = ParC2d(4, 'H', meta_size=7).eval(), torch.rand(1, 4, 12, 12)
        >>> with autotune(), torch.inference_mode():
        ...     y = layer(x)
        >>> layer.select_backend(x) in ('spatial', 'fft', 'gemm')
        True
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def fastest(operator: str, workload: object, forms: Mapping[str, Form], inputs: Sequence[Tensor],
            training: bool) -> str | None:
    """The form of an operator that took the least time for a workload, measured now or before.

    Args:
        operator: Name of the operator.
        workload: All that the time depends on, but for the device; told apart by ``str``.
        forms: The forms by name, the reference form first: functions of `inputs`. One that raises, or whose output, or
            in training whose gradient, differs from the reference form's, is put out with a warning.
        inputs: Tensors of the workload. Neither they nor their gradients are changed.
        training: Whether forward and backward pass are timed, not the forward pass alone.

    Returns:
        The name, or None where nothing is known and nothing may be measured.

    Raises:
        DataError: If the file of measured choices cannot be read.
    """
    if is_tracing() or torch.are_deterministic_algorithms_enabled():
        return None
    on = _depth or torch.backends.cudnn.benchmark
    if not (on or _known or ENVIRONMENT_VARIABLE in os.environ):
        return None
    table, key = _table(machine(inputs[0].device)), f'{operator} {workload}'
    if key not in table and on and _may_measure(inputs):
        if (choice := _measure(operator, workload, forms, inputs, training)) is None:
            return None
        table[key] = choice
        _write(machine(inputs[0].device), key, choice)
    found = table.get(key)
    return found if found in forms else None


@functools.lru_cache
def device_name(device: torch.device) -> str:
    """The name of the processor or card."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    names = [line.partition(': ')[2] for line in info.read_text().splitlines() if line.startswith('model name')
             ] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: torch.device) -> str:
    """What measured times hold for: the device, torch and, on a CPU, its vector instructions and the threads."""
    name = f'{device_name(device)}, torch {torch.__version__}'
    if device.type == 'cpu':
        name += f', {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads'
    return name


def _may_measure(inputs: Sequence[Tensor]) -> bool:
    if any(t.is_meta or isinstance(t, FakeTensor) or is_functorch_wrapped_tensor(t) for t in inputs) or (
            is_in_torch_dispatch_mode()):
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized() and (
            torch.distributed.get_world_size() > 1):
        return False
    return not (inputs[0].is_cuda and torch.cuda.is_current_stream_capturing())


def _measure(operator: str, workload: object, forms: Mapping[str, Form], inputs: Sequence[Tensor],
             training: bool) -> str | None:
    """The fastest form, or None if the reference form's output is not finite, so that nothing can be compared."""
    calls, reference = {}, None
    inputs = [t.detach().requires_grad_(t.requires_grad) if training else t for t in inputs]
    # What recomputes activations, or moves them elsewhere, shall not see those of the measurement.
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t), contextlib.ExitStack() as stack:
        if not training:
            stack.enter_context(torch.no_grad())
        for name, form in forms.items():
            def call(form: Form = form) -> list[Tensor]:
                return _results(form, inputs, training)

            if reference is None:
                reference = call()
                if not all(bool(t.isfinite().all()) for t in reference):
                    return None
                calls[name] = call
                continue
            try:
                wrong = _difference(call(), reference)
            except Exception as error:  # of any kind: memory, a kernel that the device lacks
                wrong = f'{type(error).__name__}: {error}'
            if not wrong:
                calls[name] = call
            elif (operator, name) not in _warned:
                _warned.add((operator, name))
                warnings.warn(f'the form {name!r} of {operator} is put out: {wrong} ({workload})', stacklevel=4)
        times = _times(calls, inputs[0].device)
    best = min(times, key=times.__getitem__)
    _logger.info('%s: %s is the fastest (%s) for %s', operator, best,
                 ', '.join(f'{name} {time:.3g} ms' for name, time in times.items()), workload)
    return best


def _results(form: Form, inputs: Sequence[Tensor], training: bool) -> list[Tensor]:
    y = form(*inputs)
    wanted = [t for t in inputs if t.requires_grad]
    if not (training and wanted):
        return [y]
    return [y.detach(), *torch.autograd.grad(y, wanted, torch.ones_like(y))]


def _difference(results: Sequence[Tensor], reference: Sequence[Tensor]) -> str:
    """How far results are from those of the reference form, or nothing if they agree."""
    for got, want in zip(results, reference, strict=True):
        if got.shape != want.shape or got.dtype != want.dtype:
            return f'it gives {tuple(got.shape)} of {got.dtype}, not {tuple(want.shape)} of {want.dtype}'
        greatest = want.abs().max().item() if want.numel() else 0.
        worst = (got - want).abs().max().item() if want.numel() else 0.
        if not worst <= TOLERANCES.get(want.dtype, HALF_TOLERANCE) * greatest:
            return f'it differs from the reference form by {worst:.1e}, with values up to {greatest:.1e}'
    return ''


def _times(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """The least time of each call in milliseconds, of calls in turns."""
    times = {name: float('inf') for name in calls}
    for _ in range(CALLS):
        for name, call in calls.items():
            times[name] = min(times[name], _clocked(call, device))
    return times


def _clocked(call: Callable[[], object], device: torch.device) -> float:
    """The time of a call in milliseconds."""
    if device.type == 'cuda':
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def _table(name: str) -> dict[str, str]:
    """What is known of a machine; the file is read when it is first met."""
    path = os.environ.get(ENVIRONMENT_VARIABLE)
    if path and path not in _read:
        for other, choices in _load(path).items():
            _known.setdefault(other, {}).update(choices)
        _read.add(path)
    return _known.setdefault(name, {})


def _load(path: str) -> dict[str, dict[str, str]]:
    """The choices in a file, by machine; none if there is no file."""
    try:
        found = json.loads(Path(path).read_bytes())
        for choices in found.values():
            if not all(isinstance(choice, str) for choice in choices.values()):
                raise ValueError('not a name of a form for each workload')
        return found
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(f'{path}, which {ENVIRONMENT_VARIABLE} names, is not a file of measured choices ({error}): '
                        'name another one, or remove it') from error


def _write(name: str, key: str, choice: str) -> None:
    """Add a choice to the file, if one is named, beside what other processes wrote meanwhile."""
    if path := os.environ.get(ENVIRONMENT_VARIABLE):
        found = _load(path)
        found.setdefault(name, {})[key] = choice
        with atomic_write(path) as file:
            file.write(json.dumps(found, indent=1, sort_keys=True).encode())
