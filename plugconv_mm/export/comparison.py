"""Comparison of an exported model with PyTorch, and of their times."""
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from plugconv_mm.analysis.interleave import interleaved
from plugconv_mm.errors import ExportError
from plugconv_mm.export.matching import SCORE, differing_detection
from plugconv_mm.export.prepared import Prepared
from plugconv_mm.export.report import ExportReport

TOLERANCE = 1e-4  # of values, in standard deviations
LABELS = 1e-3  # part of the pixels of which labels may differ: two classes can be as probable as one another

Run = Callable[[Tensor], list[Tensor]]


def compare_with_torch(prepared: Prepared, path: Path, run: Run, runtime: str) -> ExportReport:
    """Compare the outputs of a runtime with those of PyTorch, on all batches, and time both.

    Args:
        prepared: The model in PyTorch.
        path: The file to be.
        run: The function from images to the outputs of the runtime.
        runtime: Its name in messages.

    Raises:
        ExportError: The runtime fails, gives other shapes, or differs by more than is allowed.
    """
    kind = prepared.part.outputs
    difference = max(_COMPARISONS[kind](_outputs(prepared.reference, run, runtime, images), runtime)
                     for images in (*prepared.more, prepared.images))
    allowed = dict(values=TOLERANCE, labels=LABELS).get(kind)
    if allowed is not None and not difference <= allowed:
        raise ExportError(f'the outputs in {runtime} differ from those of PyTorch by {difference:.1e} of their '
                          f'{"number" if kind == "labels" else "deviation"}, where {allowed:.0e} is allowed: {path} '
                          'was not written')
    torch_ms, other_ms = _median_times(run, prepared.deployed, prepared.images[:1])
    compared = int((prepared.expected[0][..., 4] > SCORE).sum()) if kind == 'detections' else None
    return ExportReport(path, prepared.part.description, ('batch', *prepared.images.shape[1:]), prepared.shapes,
                        difference, torch_ms, other_ms, compared, runtime)


def _values(pairs: list[tuple[Tensor, Tensor]], runtime: str) -> float:
    differences = []
    for got, want in pairs:
        for name, values in (('PyTorch', want), (runtime, got)):
            if not values.isfinite().all():
                raise ExportError(f'with a batch of {len(values)} not all outputs in {name} are finite')
        scale = want.std(correction=0).item() or want.abs().max().item() or 1.  # of one value, the value
        differences.append((got - want).abs().max().item() / scale)
    return max(differences)


def _labels(pairs: list[tuple[Tensor, Tensor]], runtime: str) -> float:
    return max((got != want).to(torch.float32).mean().item() for got, want in pairs)


def _detections(pairs: list[tuple[Tensor, Tensor]], runtime: str) -> float:
    got, want = zip(*pairs, strict=True)
    if differing := differing_detection(want, got, runtime):
        raise ExportError(f'the detections in {runtime} differ from those of PyTorch: {differing}')
    return (want[0][..., 4] - got[0][..., 4]).abs().max().item()


_COMPARISONS = dict(values=_values, labels=_labels, detections=_detections)


def _outputs(reference: nn.Module, run: Run, runtime: str, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The outputs of a runtime, each with that of PyTorch."""
    with torch.no_grad():
        expected = reference(images)
    try:
        outputs = run(images)
    except Exception as error:
        raise ExportError(f'{runtime} fails with a batch of {len(images)}: {str(error).splitlines()[0]}') from error
    for got, want in zip(outputs, expected, strict=True):
        if got.shape != want.shape:
            raise ExportError(f'{runtime} gives {tuple(got.shape)} where PyTorch gives {tuple(want.shape)}')
    return list(zip(outputs, expected, strict=True))


def _median_times(run: Run, module: nn.Module, images: Tensor) -> tuple[float, float]:
    """Time a forward pass in both, in turns, so that a change of the machine's speed affects both alike.

    Returns:
        Medians in PyTorch and in the runtime, in milliseconds.
    """
    def clocked(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    candidates = dict(torch=lambda: clocked(lambda: module(images)), other=lambda: clocked(lambda: run(images)))
    with torch.no_grad():
        first = {name: call() for name, call in candidates.items()}  # which takes longer, and is not counted
        # A model that takes seconds would otherwise be timed for longer than it was exported.
        times = interleaved(candidates, 7 if first['torch'] < 1e3 else 2, warm_ups=0)
    return statistics.median(times['torch']), statistics.median(times['other'])
