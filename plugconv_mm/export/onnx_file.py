"""The export of a model to an ONNX file."""
import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.comparison import compare_with_torch
from plugconv_mm.export.preconditions import check_destination, check_packages, check_torch
from plugconv_mm.export.prepared import prepare
from plugconv_mm.export.report import ExportReport
from plugconv_mm.export.runtimes import open_exported

OPSET = 19  # the first with deformable convolutions
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
    check_torch()
    prepared = prepare(model, shape, classes, images, features, raw, uint8, paste_masks, any_size, metadata)
    program = to_onnx(prepared.deployed, prepared.images[:2], prepared.names, prepared.variables, opset)
    program.model.metadata_props.update(prepared.metadata)
    with files_written_at(path, program) as file:
        return compare_with_torch(prepared, path, open_exported(file).run, 'ONNX Runtime')


def to_onnx(module: nn.Module, images: Tensor, names: list[str], variables: Mapping[int, object],
            opset: int = OPSET) -> 'torch.onnx.ONNXProgram':
    """Translate a module that takes batches of any number of images.

    Args:
        module: Maps images to a tuple of tensors.
        images: A batch of two images or more.
        names: Of the outputs.
        variables: The dimensions of the images that may change, and how ``torch.export`` is told of them.
        opset: Version of ONNX's operators.

    Raises:
        ExportError: PyTorch's exporter fails.
    """
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter('ignore')
        try:
            return torch.onnx.export(
                module, (images, ), input_names=['input'], output_names=names, opset_version=opset, dynamo=True,
                dynamic_shapes=(dict(variables), ), verbose=False)
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
