"""Comparison of an ONNX file with PyTorch, in ONNX Runtime on the CPU."""
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugconv_mm.analysis.interleave import interleaved
from plugconv_mm.errors import ExportError
from plugconv_mm.export.matching import differing_detection

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(path: str | Path) -> 'InferenceSession':
    """Load an ONNX file into ONNX Runtime, with as many threads as PyTorch has."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def largest_difference(session: 'InferenceSession', reference: nn.Module, images: Tensor) -> float:
    """Compare the outputs of a file with those of PyTorch.

    Args:
        session: The file, whose input is named 'input'.
        reference: Maps images (N, C, H, W) to a tuple of tensors.
        images: The batch.

    Returns:
        The largest difference in any output, in standard deviations of that output in PyTorch.

    Raises:
        ExportError: ONNX Runtime fails, gives other shapes, or one of the two gives values that are not finite.
    """
    differences = []
    for got, want in _outputs(session, reference, images):
        for runtime, values in (('PyTorch', want), ('ONNX Runtime', got)):
            if not values.isfinite().all():
                raise ExportError(f'with a batch of {len(images)} not all outputs in {runtime} are finite')
        scale = want.std(correction=0).item() or want.abs().max().item() or 1.  # of one value, the value
        differences.append((got - want).abs().max().item() / scale)
    return max(differences)


def difference_of_detections(session: 'InferenceSession', reference: nn.Module, images: Tensor) -> float:
    """Compare the detections of a file with those of PyTorch.

    Args:
        session: The file, whose input is named 'input'.
        reference: Maps images (N, C, H, W) to boxes with scores, labels, and masks where there are any.
        images: The batch.

    Returns:
        The largest difference of the scores in their order.

    Raises:
        ExportError: ONNX Runtime fails, gives other shapes, or other detections.
    """
    outputs = _outputs(session, reference, images)
    got, want = zip(*outputs, strict=True)
    if differing := differing_detection(want, got):
        raise ExportError(f'the detections in ONNX Runtime differ from those of PyTorch: {differing}')
    return (want[0][..., 4] - got[0][..., 4]).abs().max().item()


def difference_of_labels(session: 'InferenceSession', reference: nn.Module, images: Tensor) -> float:
    """Compare the labels that a file gives pixels with those of PyTorch.

    Args:
        session: The file, whose input is named 'input'.
        reference: Maps images to a tuple of labels (N, H, W).
        images: The batch.

    Returns:
        The part of the pixels whose labels differ.

    Raises:
        ExportError: ONNX Runtime fails, or gives other shapes.
    """
    return max((got != want).to(torch.float32).mean().item() for got, want in _outputs(session, reference, images))


def _outputs(session: 'InferenceSession', reference: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The outputs of a file, each with that of PyTorch."""
    with torch.no_grad():
        expected = reference(images)
    try:
        outputs = session.run(None, {'input': images.numpy()})
    except Exception as error:
        raise ExportError(f'ONNX Runtime fails with a batch of {len(images)}: '
                          f'{str(error).splitlines()[0]}') from error
    for got, want in zip(outputs, expected, strict=True):
        if got.shape != tuple(want.shape):
            raise ExportError(f'ONNX Runtime gives {got.shape} where PyTorch gives {tuple(want.shape)}')
    return [(torch.from_numpy(got), want) for got, want in zip(outputs, expected, strict=True)]


def median_times(session: 'InferenceSession', module: nn.Module, images: Tensor,
                 rounds: int = 7) -> tuple[float, float]:
    """Time a forward pass in both, in turns, so that a change of the machine's speed affects both alike.

    Returns:
        Medians in PyTorch and in ONNX Runtime, in milliseconds.
    """
    def clocked(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    array = images.numpy()
    candidates = dict(torch=lambda: clocked(lambda: module(images)),
                      onnx=lambda: clocked(lambda: session.run(None, {'input': array})))
    with torch.no_grad():
        times = interleaved(candidates, rounds, warm_ups=1)
    return statistics.median(times['torch']), statistics.median(times['onnx'])
