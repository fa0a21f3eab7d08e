"""The export of a model to an ONNX file."""
import contextlib
import copy
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.file_metadata import file_metadata
from plugconv_mm.export.matching import SCORE
from plugconv_mm.export.onnx_runtime import (
    difference_of_detections,
    difference_of_labels,
    largest_difference,
    median_times,
    open_session,
)
from plugconv_mm.export.preconditions import check_destination, check_model, check_packages, check_shape
from plugconv_mm.export.report import ExportReport
from plugconv_mm.export.tasks import ExportedModule, input_channels, part_of
from plugconv_mm.plugging import merge

TOLERANCE = 1e-4  # of values, in standard deviations
LABELS = 1e-3  # part of the pixels of which labels may differ: two classes can be as probable as one another
OPSET = 19  # the first with deformable convolutions
_LARGER = 64  # pixels more than exported, of a second size that is compared
_MOST_BYTES = 2**31 - 2**24  # of a protobuf file, less a little for the graph


def export_onnx(model: nn.Module, path: str | os.PathLike, shape: tuple[int, int],
                classes: tuple[str, ...] | None = None, images: Tensor | None = None, features: bool = False, *,
                raw: bool = False, uint8: bool = False, paste_masks: bool = False, any_size: bool = False,
                opset: int = OPSET, metadata: Mapping[str, object] | None = None) -> ExportReport:
    """Write a model as an ONNX file that takes batches, of any number, of images of one size, or of any.

    Classifiers of mmpretrain give ``scores`` (B, C), segmentors of mmseg ``labels`` (B, H, W), detectors of mmdet
    boxes with scores ``dets`` (B, K, 5), ``labels`` (B, K) and ``masks`` (B, K, h, w), where zeros and -1 stand for
    boxes that an image has not; any other module gives what it gives. Deployment forms are used. The file is compared
    with PyTorch in ONNX Runtime, with a batch of one image and with one of all, before it takes its name; if that
    fails, or anything before it, an older file of this name stays. Its metadata tell in JSON how images are prepared:
    ``size``, ``layout``, ``order`` of the channels, ``mean``, ``std``; and the ``task``, the ``classes`` and their
    ``palette``.

    Args:
        model: On the CPU, in float32. It is not changed. Names and colours of classes are those of its
            ``dataset_meta``, if it has any.
        path: The file to write; its folder must exist.
        shape: Height and width of the images, in pixels.
        classes: Names of classes, in the place of the model's.
        images: Images as the file takes them, on which the two are compared, two or more; three random ones if None, in
            which a trained detector finds little.
        features: Whether backbone and neck of a detector are exported, without its heads.
        raw: Whether the last step is left out: classifiers and segmentors give ``logits``; detectors with a dense head
            give all candidates, for runtimes without non-maximum suppression.
        uint8: Whether images are pixels (B, H, W, 3), BGR, of uint8, as OpenCV reads them, which are normalised and
            padded inside the graph; else normalised and padded ones (B, C, H, W) of float32.
        paste_masks: Whether masks are those of pixels (B, K, H, W), of bool, and not probabilities inside the boxes.
        any_size: Whether the file takes images of other sizes, too: those that PyTorch takes, padded likewise. It is
            compared at a second size.
        opset: Version of ONNX's operators; deformable convolutions need 19.
        metadata: Further entries of the metadata, which JSON can hold.

    Raises:
        ExportError: A package is missing, the model or the size cannot be exported, or the outputs in ONNX Runtime
            differ from PyTorch's by more than ``TOLERANCE``, in standard deviations of the output; or more than
            ``LABELS`` of the labels do; or a detection of one of the two is not found by the other.

    Example:
        >>> from plugconv_mm.export import export_onnx
        >>> from plugconv_mm.ops import GlobalLocalFilter
        >>> export_onnx(GlobalLocalFilter(4, 7, 4), 'filter.onnx', (6, 9)).outputs  # doctest: +SKIP
        {'output_0': ('batch', 4, 6, 9)}
    """
    path, shape = Path(path), tuple(shape)
    check_destination(path)
    check_packages()
    part = part_of(model, features, raw, paste_masks)
    check_shape(model, shape, uint8)
    check_model(model, part)
    model = copy.deepcopy(model).eval()
    reference = ExportedModule(model, part, uint8)
    images = _images(model, shape, uint8, images)
    try:
        with torch.no_grad():
            expected = reference(images)
    except Exception as error:
        raise ExportError(f'{type(model).__name__} does not take images of {shape[0]}x{shape[1]}: {error}') from error
    if not all(isinstance(y, Tensor) for y in expected):
        raise ExportError(f'{type(model).__name__} gives {", ".join(type(y).__name__ for y in expected)} and not '
                          'tensors alone, which is all that an ONNX graph can give')
    names = part.output_names(len(expected))

    deployed = ExportedModule(copy.deepcopy(model), part, uint8)
    merge(deployed)
    program = to_onnx(deployed, images[:2], names, opset, any_size)
    meta = getattr(model, 'dataset_meta', None) or {}
    program.model.metadata_props.update(file_metadata(model, part, shape, uint8, {
        **{key: meta[key] for key in ('classes', 'palette') if meta.get(key)}, **(metadata or {}),
        **(dict(classes=classes) if classes else {}), 'any_size': any_size}))
    with files_written_at(path, program) as file:
        session = open_session(file)
        compare, allowed = _COMPARISONS[part.outputs]
        difference = max(compare(session, reference, batch) for batch in (images[:1], images))
        if any_size:
            difference = max(difference, compare(session, reference, _larger(images, uint8)))
        if not difference <= allowed:
            raise ExportError(f'the outputs in ONNX Runtime differ from those of PyTorch by {difference:.1e} of their '
                              f'{"number" if part.outputs == "labels" else "deviation"}, where {allowed:.0e} is '
                              f'allowed: {path} was not written')
        torch_ms, onnx_ms = median_times(session, deployed, images[:1])
    outputs = {name: ('batch', *y.shape[1:]) for name, y in zip(names, expected, strict=True)}
    compared = int((expected[0][..., 4] > SCORE).sum()) if part.outputs == 'detections' else None
    return ExportReport(path, part.description, ('batch', *images.shape[1:]), outputs, difference, torch_ms, onnx_ms,
                        compared)


_COMPARISONS: dict[str, tuple[Callable[..., float], float]] = dict(
    values=(largest_difference, TOLERANCE), labels=(difference_of_labels, LABELS),
    detections=(difference_of_detections, math.inf))


def _images(model: nn.Module, shape: tuple[int, int], uint8: bool, images: Tensor | None) -> Tensor:
    """The images that the runtimes are compared on: random ones, or those given, which are checked."""
    random = torch.Generator().manual_seed(0)
    if uint8:
        size, dtype = (*shape, 3), torch.uint8
        drawn = torch.randint(256, (3, *size), dtype=dtype, generator=random)
    else:
        size, dtype = (input_channels(model), *shape), torch.float32
        drawn = torch.randn(3, *size, generator=random)
    if images is None:
        return drawn
    if images.shape[1:] != size or len(images) < 2 or images.dtype != dtype:
        raise ExportError(f'at least two images of {"x".join(map(str, size))} in {dtype} are compared, got '
                          f'{tuple(images.shape)} in {images.dtype}')
    return images


def _larger(images: Tensor, uint8: bool) -> Tensor:
    """The images with their first rows and columns a second time behind their last."""
    for dim in (1, 2) if uint8 else (2, 3):
        images = torch.cat((images, images.narrow(dim, 0, min(_LARGER, images.shape[dim]))), dim)
    return images


def to_onnx(module: nn.Module, images: Tensor, names: list[str], opset: int = OPSET,
            any_size: bool = False) -> 'torch.onnx.ONNXProgram':
    """Translate a module that takes batches of any number of images.

    Args:
        module: Maps images to a tuple of tensors.
        images: A batch of two images or more; its size is a variable of the graph.
        names: Of the outputs.
        opset: Version of ONNX's operators.
        any_size: Whether heights and widths are variables, too.

    Raises:
        ExportError: PyTorch's exporter fails.
    """
    sides = (1, 2) if images.dtype == torch.uint8 else (2, 3)
    variables = {0: torch.export.Dim('batch'), **{side: torch.export.Dim.DYNAMIC for side in sides if any_size}}
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter('ignore')
        try:
            return torch.onnx.export(
                module, (images, ), input_names=['input'], output_names=names, opset_version=opset, dynamo=True,
                dynamic_shapes=(variables, ), verbose=False)
        except Exception as error:
            reason = error.__cause__ or error
            raise ExportError(f'torch.onnx cannot export this model: {type(reason).__name__}: '
                              f'{str(reason).strip().splitlines()[0]}') from error


@contextlib.contextmanager
def files_written_at(path: Path, program: 'torch.onnx.ONNXProgram') -> Iterator[Path]:
    """Write a program beside a path, and let it take that place once what is done with it there succeeds.

    Weights above the 2 GB that a file of this format can hold lie in a second file, ``NAME.data``.

    Args:
        path: The file to be.
        program: What is written.

    Yields:
        The file as it is for now.
    """
    size = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        file = Path(folder, path.name)
        program.save(file, external_data=size > _MOST_BYTES)
        yield file
        data = file.with_name(f'{path.name}.data')
        for part in (data, file):
            if part.exists():
                os.replace(part, path.with_name(part.name))
