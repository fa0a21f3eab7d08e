"""Models side by side: parameters, multiply-adds, latency and memory, of the whole and of each part."""
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from plugconv_mm.analysis.flops import measure, padded_shape
from plugconv_mm.analysis.forward_parts import PARTS, run_parts
from plugconv_mm.analysis.interleave import interleaved
from plugconv_mm.analysis.memory import watched, weight_bytes
from plugconv_mm.ops import ParC2d


@dataclass
class MeasuredCost:
    """Parameters, multiply-adds, latency and memory of a model, or of a part of one.

    Attributes:
        params: Parameters.
        macs: Multiply-adds of one image; of ParC layers whose backend is 'auto' as Fast-ParC.
        milliseconds: Latency of a batch in each round.
        memory: The most bytes that are held at once while it runs: the weights of the whole model, the images, and
            the results that are still needed.
    """
    params: int
    macs: int
    milliseconds: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def latency(self) -> tuple[float, float, float]:
        """Median, lower and upper quartile, in milliseconds."""
        if len(self.milliseconds) < 2:
            return (self.milliseconds[0], ) * 3
        low, median, high = statistics.quantiles(self.milliseconds, n=4, method='inclusive')
        return median, low, high


@dataclass
class ComparisonReport:
    """The measurements of one of the models that :func:`compare` compares.

    Attributes:
        name: Name of the model.
        shape: Height and width of the images, as padded for this model.
        batch: Images at once.
        whole: The whole model.
        parts: Its backbone, neck and head, those that it has.
        backends: How many ParC layers ran in which form, ``'spatial'``, ``'fft'`` or ``'gemm'``.
    """
    name: str
    shape: tuple[int, int]
    batch: int
    whole: MeasuredCost
    parts: dict[str, MeasuredCost]
    backends: dict[str, int]


def compare(models: dict[str, nn.Module], shape: tuple[int, int], batch: int = 1, device: str = 'cpu',
            rounds: int = 10, progress: Callable[[str], object] = lambda line: None) -> list[ComparisonReport]:
    """Measure models in evaluation mode, side by side.

    Latency and memory are those of the work whose multiply-adds are counted, see :func:`plugconv_mm.analysis.measure`:
    all layers of the network, without decoding, NMS and RoIAlign. So the figures do not depend on the number of objects
    that random weights detect.

    Args:
        models: Detectors, segmentors, classifiers or backbones by name, on the CPU. They are moved to ``device``.
        shape: Height and width of the images, in pixels.
        batch: Images at once.
        device: Where they run.
        rounds: Times that each model is timed; each round times all of them, in an order drawn anew.
        progress: Takes a line about the progress.

    Raises:
        UnsupportedConfigError: A kind of head that is not known.

    Example:
        >>> from torch import nn
        >>> models = {f'{k}x{k}': nn.Conv2d(3, 8, k, padding=k // 2, bias=False) for k in (1, 3)}
        >>> for report in compare(models, (32, 32), rounds=2):
        ...     print(report.name, report.whole.params, report.whole.macs)
        1x1 24 24576
        3x3 216 221184
    """
    reports, calls = [], {}
    for name, model in models.items():
        progress(f'{name}: parameters, multiply-adds, memory')
        padded = padded_shape(model, shape)
        cost = measure(model, padded)
        model.to(device).eval()
        images = torch.rand(batch, 3, *padded, device=device)
        memory, backends = _first_call(model, images, device)
        parts = {part: MeasuredCost(cost.params[part], sum(cost.macs[part].values()), memory=memory[part])
                 for part in PARTS if part in memory}
        whole = MeasuredCost(cost.total_params, cost.total_macs(), memory=max(memory.values()))
        reports.append(ComparisonReport(name, padded, batch, whole, parts, dict(backends.most_common())))
        calls[name] = lambda model=model, images=images: _clocked(model, images, device)
    done = iter(range(1, rounds + 1))
    times = interleaved(calls, rounds, warm_ups=1, after_round=lambda: progress(f'round {next(done)} of {rounds}'))
    for report in reports:
        for parts in times[report.name]:
            report.whole.milliseconds.append(sum(parts.values()))
            for part, milliseconds in parts.items():
                report.parts[part].milliseconds.append(milliseconds)
    return reports


def _first_call(model: nn.Module, images: torch.Tensor, device: str) -> tuple[dict[str, int], Counter]:
    """The most bytes held in each part, and the backends that ParC takes.

    It is the first pass: tensors that layers derive from their weights and keep are counted.
    """
    memory, backends = {}, Counter()
    held = weight_bytes(model) + images.numel() * images.element_size()
    hooks = [layer.register_forward_pre_hook(lambda layer, args: backends.update([layer.select_backend(args[0])]))
             for layer in model.modules() if isinstance(layer, ParC2d)]

    @contextmanager
    def followed(part: str) -> Iterator[None]:
        nonlocal held
        with watched(device) as found:
            yield
        memory[part] = held + found.peak
        held += found.left

    with torch.inference_mode():
        run_parts(model, images, followed)
    for hook in hooks:
        hook.remove()
    return memory, backends


def _clocked(model: nn.Module, images: torch.Tensor, device: str) -> dict[str, float]:
    """Time a pass: milliseconds of each part."""
    times = {}

    @contextmanager
    def clock(part: str) -> Iterator[None]:
        _wait(device)
        begin = time.perf_counter()
        yield
        _wait(device)
        times[part] = 1e3 * (time.perf_counter() - begin)

    with torch.inference_mode():
        run_parts(model, images, clock)
    return times


def _wait(device: str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
