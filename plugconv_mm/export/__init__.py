"""Models as ONNX files that any runtime takes, checked against PyTorch in ONNX Runtime.

The operators see to their own ONNX form while they are exported: ParC leaves as a product with its circulant matrix, or
with DFT matrices where it mixes channels; the global filter of gnConv as products with DFT matrices; the dynamic
convolutions of KernelWarehouse as products with windows of the map. So ``torch.onnx.export(model, ..., dynamo=True)``
takes each of them, too. This module adds what a whole model needs.
"""
import contextlib
import copy
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from plugconv_mm.analysis.interleave import interleaved
from plugconv_mm.errors import ExportError
from plugconv_mm.ops import KWConv2d, switch_to_deploy

TOLERANCE = 1e-4
_OPSET = 18
_MAX_BYTES = 2**31 - 2**24  # a protobuf file, less a little for the graph


@dataclass
class ExportReport:
    """What :func:`export_onnx` wrote.

    Attributes:
        path: The file.
        part: What it holds, in words.
        outputs: Name and shape of each output; the batch is 'batch'.
        difference: The largest difference from PyTorch, in deviations of PyTorch's output.
        torch_ms: Median time of one image in PyTorch, in milliseconds.
        onnx_ms: The same in ONNX Runtime.
    """
    path: Path
    part: str
    outputs: dict[str, tuple]
    difference: float
    torch_ms: float
    onnx_ms: float


class _Exported(nn.Module):
    """What leaves: maps images (N, C, H, W) to a tuple of tensors."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = self.call(self.model, x)
        return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs, )


def _is_a(model: nn.Module, module: str, name: str) -> bool:
    """Whether `model` is of a class of a package that may not be there."""
    return module in sys.modules and isinstance(model, getattr(sys.modules[module], name))


def _part_of(model: nn.Module) -> tuple[str, Callable, str]:
    """What of a model is exported: in words, as a function, and the name of its outputs."""
    if _is_a(model, 'mmpretrain.models.classifiers', 'ImageClassifier'):
        if not model.with_head:
            return 'the backbone of a classifier without a head', lambda m, x: m.extract_feat(x), 'feature'
        return 'the whole classifier, to logits', lambda m, x: m(x, mode='tensor'), 'logits'
    if _is_a(model, 'mmseg.models.segmentors', 'EncoderDecoder'):
        return ('the whole segmentor, to logits of the size of the image',
                lambda m, x: m.encode_decode(x, [dict(img_shape=tuple(x.shape[2:]))]), 'logits')
    if _is_a(model, 'mmdet.models.detectors', 'BaseDetector'):
        if not hasattr(model, 'backbone'):
            raise ExportError(f'{type(model).__name__} has no backbone, the part of a detector that is exported')
        neck = ' and neck' if model.with_neck else ''
        return (f'backbone{neck} of the detector; its heads, whose proposals and NMS make shapes that depend on the '
                'image, stay in PyTorch', lambda m, x: m.extract_feat(x), 'feature')
    if hasattr(model, 'data_preprocessor'):
        raise ExportError(f'{type(model).__name__} is neither a classifier of mmpretrain, nor an EncoderDecoder of '
                          'mmseg, nor a detector of mmdet: only these are exported')
    return f'the whole {type(model).__name__}', lambda m, x: m(x), 'output'


def _import_onnx() -> None:
    """Raises where what the export needs is missing."""
    missing = []
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ExportError(f'the export to ONNX needs {", ".join(missing)}: pip install {" ".join(missing)}, or all of '
                          "it with pip install 'plugconv-mm[onnx]'")
    if not hasattr(torch.onnx, 'ONNXProgram'):
        raise ExportError(f'the export to ONNX needs torch 2.6 or newer, this is {torch.__version__}')


def _check(model: nn.Module, shape: tuple[int, int], kind: str) -> None:
    """Raises where the model, or the size, cannot be exported; of 'feature' only backbone and neck are."""
    if len(shape) != 2 or min(shape) < 1:
        raise ExportError(f'the shape of an image is a height and a width in pixels, got {tuple(shape)}')
    preprocessor = getattr(model, 'data_preprocessor', None)
    divisor = getattr(preprocessor, 'pad_size_divisor', None) or (
        getattr(preprocessor, 'test_cfg', None) or {}).get('size_divisor') or 1
    if any(side % divisor for side in shape):
        near = ' '.join(str(-(-side // divisor) * divisor) for side in shape)
        raise ExportError(f'this model sees images padded to multiples of {divisor} only, and never one of '
                          f'{shape[0]}x{shape[1]}: give --shape {near}, and pad the images likewise')
    test_cfg = getattr(model, 'test_cfg', None) or {}
    if test_cfg.get('mode') == 'slide' and tuple(test_cfg['crop_size']) != tuple(shape):
        raise ExportError(f'this segmentor goes over the image in windows of {tuple(test_cfg["crop_size"])}, and one '
                          f'window is what is exported: give --shape {" ".join(map(str, test_cfg["crop_size"]))}, or '
                          'take whole images with --cfg-options model.test_cfg.mode=whole')
    size = 0
    for name, tensor in model.state_dict().items():
        size += tensor.numel() * tensor.element_size()
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(f'the model is exported in float32, and {name} is {tensor.dtype}: call model.float()')
    if size > _MAX_BYTES:
        raise ExportError(f'the weights take {size / 2**30:.1f} GB, and an ONNX file holds at most 2')
    for name, module in model.named_modules():
        stays = kind == 'feature' and not name.startswith(('backbone', 'neck'))
        if type(module).__module__.startswith('mmcv.ops.') and not stays:
            raise ExportError(f'{name} is a {type(module).__name__} of mmcv, an operator that ONNX Runtime lacks')


def _channels(model: nn.Module) -> int:
    """Channels of an image."""
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    if mean is not None:
        return mean.numel()
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, KWConv2d))), None)
    return getattr(first, 'in_channels', 3)


def _metadata(model: nn.Module, classes: tuple | None) -> dict[str, str]:
    """How an image becomes the input, and what the channels of the logits stand for, as JSON."""
    preprocessor, entries = getattr(model, 'data_preprocessor', None), {}
    for key in ('mean', 'std'):
        value = getattr(preprocessor, key, None)
        if value is not None:
            entries[key] = value.flatten().tolist()
    if preprocessor is not None:
        # mmpretrain calls it to_rgb, the others _channel_conversion
        swapped = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        entries['order'] = 'RGB' if swapped else 'BGR'
    if classes:
        entries['classes'] = list(classes)
    return {key: json.dumps(value) for key, value in entries.items()}


def export_onnx(model: nn.Module, path: str | os.PathLike, shape: tuple[int, int],
                classes: tuple | None = None) -> ExportReport:
    """Write a model as an ONNX file, for batches of any size of normalised images of one size.

    Classifiers of mmpretrain and segmentors of mmseg leave whole, up to their logits, detectors of mmdet as backbone
    and neck, any other module as it is. Deployment forms are used. The file is compared with PyTorch in ONNX Runtime,
    with batches of one and of three images, before it takes its name; if that fails, or anything before it, an older
    file of this name stays. Its metadata hold, in JSON, ``mean``, ``std`` and ``order`` of the images' channels, and
    ``classes``.

    Args:
        model: On the CPU, in float32. It is not changed.
        path: The file to write; its folder must exist.
        shape: Height and width of the images, in pixels.
        classes: Names to put into the metadata.

    Raises:
        ExportError: A package is missing; the model or the size cannot be exported, said before the export; the
            exporter failed; or the results differ by more than 1e-4 deviations.

    Example:
        >>> from plugconv_mm.export import export_onnx
        >>> from plugconv_mm.ops import GlobalLocalFilter
        >>> export_onnx(GlobalLocalFilter(4, 7, 4), 'filter.onnx', (6, 9)).outputs  # doctest: +SKIP
        {'output_0': ('batch', 4, 6, 9)}
    """
    path, shape = Path(path), tuple(shape)
    if not path.parent.is_dir():
        raise ExportError(f'there is no folder {path.parent} to write {path.name} into: make it first')
    if path.is_dir():
        raise ExportError(f'{path} is a folder: name a file to write')
    _import_onnx()
    words, call, kind = _part_of(model)
    _check(model, shape, kind)
    model = copy.deepcopy(model).eval()
    reference = _Exported(model, call)
    images = torch.randn(3, _channels(model), *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = reference(images)
    except Exception as error:
        raise ExportError(f'{type(model).__name__} does not take images of {shape[0]}x{shape[1]}: {error}') from error
    if not all(isinstance(y, Tensor) for y in expected):
        raise ExportError(f'{type(model).__name__} gives {", ".join(type(y).__name__ for y in expected)} and not '
                          'tensors alone, which is all that an ONNX graph can give')
    names = [kind] if len(expected) == 1 and kind == 'logits' else [f'{kind}_{i}' for i in range(len(expected))]

    deployed = _Exported(copy.deepcopy(model), call)
    switch_to_deploy(deployed)
    part = path.with_name(f'.{os.getpid()}-{path.name}')
    try:
        program = _export(deployed, images[:2], names)
        program.model.metadata_props.update(_metadata(model, classes))
        program.save(part, external_data=False)
        session = _session(part)
        difference = max(_difference(session, reference, images[:1]), _difference(session, reference, images))
        if not difference <= TOLERANCE:
            raise ExportError(f'the outputs in ONNX Runtime differ from those of PyTorch by {difference:.1e} of their '
                              f'deviation, where {TOLERANCE:.0e} is allowed: {path} was not written')
        torch_ms, onnx_ms = _time(session, deployed, images[:1])
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    outputs = {name: ('batch', *y.shape[1:]) for name, y in zip(names, expected, strict=True)}
    return ExportReport(path, words, outputs, difference, torch_ms, onnx_ms)


def _export(module: nn.Module, images: Tensor, names: list[str]):
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


def _session(path: Path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def _difference(session, reference: nn.Module, images: Tensor) -> float:
    """The largest difference of any output, in deviations of that output."""
    with torch.no_grad():
        expected = reference(images)
    try:
        outputs = session.run(None, {'input': images.numpy()})
    except Exception as error:
        raise ExportError(f'ONNX Runtime fails with a batch of {len(images)}: '
                          f'{str(error).splitlines()[0]}') from error
    differences = []
    for got, want in zip(outputs, expected, strict=True):
        if got.shape != tuple(want.shape):
            raise ExportError(f'ONNX Runtime gives {got.shape} where PyTorch gives {tuple(want.shape)}')
        got = torch.from_numpy(got)
        for whose, values in (('PyTorch', want), ('ONNX Runtime', got)):
            if not values.isfinite().all():
                raise ExportError(f'with a batch of {len(images)} not all outputs in {whose} are finite')
        scale = want.std(correction=0).item() or want.abs().max().item() or 1.  # of one value, the value
        differences.append((got - want).abs().max().item() / scale)
    return max(differences)


def _time(session, module: nn.Module, images: Tensor, rounds: int = 7) -> tuple[float, float]:
    """Median milliseconds in PyTorch and in ONNX Runtime, by turns, so that a drifting machine hurts neither."""
    def clocked(call):
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)

    array = images.numpy()
    candidates = dict(torch=lambda: clocked(lambda: module(images)),
                      onnx=lambda: clocked(lambda: session.run(None, {'input': array})))
    with torch.no_grad():
        times = interleaved(candidates, rounds, warm_ups=1)
    return statistics.median(times['torch']), statistics.median(times['onnx'])
