"""The export of a model to an ONNX file."""
import contextlib
import copy
import os
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.errors import ExportError
from plugconv_mm.export.matching import SCORE
from plugconv_mm.export.onnx_runtime import difference_of_detections, largest_difference, median_times, open_session
from plugconv_mm.export.preconditions import check_destination, check_model, check_packages, check_shape
from plugconv_mm.export.report import ExportReport
from plugconv_mm.export.tasks import ExportedModule, input_channels, metadata, part_of
from plugconv_mm.plugging import merge

TOLERANCE = 1e-4
_OPSET = 19


def export_onnx(model: nn.Module, path: str | os.PathLike, shape: tuple[int, int],
                classes: tuple[str, ...] | None = None, images: Tensor | None = None,
                features: bool = False) -> ExportReport:
    """Write a model as an ONNX file that takes batches, of any number, of normalised images of one size.

    Classifiers of mmpretrain and segmentors of mmseg are exported whole, up to their logits; detectors of mmdet with a
    dense head or proposals up to their boxes with scores ``dets`` (B, K, 5), ``labels`` (B, K) and ``masks``
    (B, K, h, w), where zeros and -1 stand for boxes that an image has not; any other module as it is. Deployment forms
    are used. The file is compared with PyTorch in ONNX Runtime, with a batch of one image and with one of all, before
    it takes its name; if that fails, or anything before it, an older file of this name stays. Its metadata hold, in
    JSON, ``mean``, ``std`` and ``order`` of the images' channels, and ``classes``.

    Args:
        model: On the CPU, in float32. It is not changed.
        path: The file to write; its folder must exist.
        shape: Height and width of the images, in pixels.
        classes: Names to put into the metadata.
        images: Normalised images (N, C, H, W) on which the two are compared, two or more; three random ones if None, in
            which a trained detector finds little.
        features: Whether backbone and neck of a detector are exported, without its heads.

    Raises:
        ExportError: A package is missing, the model or the size cannot be exported, or the outputs in ONNX Runtime
            differ from PyTorch's by more than ``TOLERANCE``, in standard deviations of the output; or a detection of
            one of the two is not found by the other.

    Example:
        >>> from plugconv_mm.export import export_onnx
        >>> from plugconv_mm.ops import GlobalLocalFilter
        >>> export_onnx(GlobalLocalFilter(4, 7, 4), 'filter.onnx', (6, 9)).outputs  # doctest: +SKIP
        {'output_0': ('batch', 4, 6, 9)}
    """
    path, shape = Path(path), tuple(shape)
    check_destination(path)
    check_packages()
    part = part_of(model, features)
    check_shape(model, shape)
    check_model(model, part)
    model = copy.deepcopy(model).eval()
    reference = ExportedModule(model, part)
    if images is None:
        images = torch.randn(3, input_channels(model), *shape, generator=torch.Generator().manual_seed(0))
    elif images.shape[1:] != (input_channels(model), *shape) or len(images) < 2:
        raise ExportError(f'at least two images of {input_channels(model)}x{shape[0]}x{shape[1]} are compared, got '
                          f'{tuple(images.shape)}')
    try:
        with torch.no_grad():
            expected = reference(images)
    except Exception as error:
        raise ExportError(f'{type(model).__name__} does not take images of {shape[0]}x{shape[1]}: {error}') from error
    if not all(isinstance(y, Tensor) for y in expected):
        raise ExportError(f'{type(model).__name__} gives {", ".join(type(y).__name__ for y in expected)} and not '
                          'tensors alone, which is all that an ONNX graph can give')
    names = part.output_names(len(expected))

    deployed = ExportedModule(copy.deepcopy(model), part)
    merge(deployed)
    program = to_onnx(deployed, images[:2], names)
    program.model.metadata_props.update(metadata(model, classes))
    with atomic_write(path) as file:
        file.write(program.model_proto.SerializeToString())
        file.flush()
        session = open_session(file.name)
        compare = difference_of_detections if part.detects else largest_difference
        difference = max(compare(session, reference, batch) for batch in (images[:1], images))
        if not part.detects and not difference <= TOLERANCE:
            raise ExportError(f'the outputs in ONNX Runtime differ from those of PyTorch by {difference:.1e} of their '
                              f'deviation, where {TOLERANCE:.0e} is allowed: {path} was not written')
        torch_ms, onnx_ms = median_times(session, deployed, images[:1])
    outputs = {name: ('batch', *y.shape[1:]) for name, y in zip(names, expected, strict=True)}
    compared = int((expected[0][..., 4] > SCORE).sum()) if part.detects else None
    return ExportReport(path, part.description, outputs, difference, torch_ms, onnx_ms, compared)


def to_onnx(module: nn.Module, images: Tensor, names: list[str]) -> 'torch.onnx.ONNXProgram':
    """Translate a module that takes batches of any number of images.

    Args:
        module: Maps images (N, C, H, W) to a tuple of tensors.
        images: A batch of two images or more; its size is a variable of the graph.
        names: Of the outputs.

    Raises:
        ExportError: PyTorch's exporter fails.
    """
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter('ignore')
        try:
            return torch.onnx.export(
                module, (images, ), input_names=['input'], output_names=names, opset_version=_OPSET, dynamo=True,
                dynamic_shapes=({0: torch.export.Dim('batch')}, ), verbose=False)
        except Exception as error:
            reason = error.__cause__ or error
            raise ExportError(f'torch.onnx cannot export this model: {type(reason).__name__}: '
                              f'{str(reason).strip().splitlines()[0]}') from error
