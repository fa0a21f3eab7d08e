"""Files in the runtimes that they are made for, as functions from images to outputs."""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plugconv_mm.errors import ExportError
from plugconv_mm.export.openvino_file import METADATA, PRECISION


@dataclass(frozen=True)
class ExportedFile:
    """A file, loaded.

    Attributes:
        runtime: Name of the runtime.
        run: The function from a batch of images to the outputs.
        metadata: What :func:`plugconv_mm.export.file_metadata.file_metadata` put into it.
    """
    runtime: str
    run: Callable[[Tensor], list[Tensor]]
    metadata: dict


def open_exported(path: Path) -> ExportedFile:
    """Load a file into its runtime, which its suffix tells: ``.onnx``, ``.xml`` (OpenVINO) or ``.pt2`` (AOTInductor).

    Raises:
        ExportError: There is no such file, it has another suffix, or it cannot be loaded.
    """
    if not path.is_file():
        raise ExportError(f'there is no file {path}')
    if path.suffix not in _RUNTIMES:
        raise ExportError(f'{path} should end in {", ".join(_RUNTIMES)}')
    return _RUNTIMES[path.suffix](path)


def _onnx(path: Path) -> ExportedFile:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:
        raise ExportError(f'ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}') from error
    meta = session.get_modelmeta().custom_metadata_map
    return ExportedFile('ONNX Runtime', lambda images: [
        torch.from_numpy(output) for output in session.run(None, {'input': images.numpy()})],
        {key: json.loads(value) for key, value in meta.items()})


def _openvino(path: Path) -> ExportedFile:
    try:
        import openvino
    except ImportError as error:
        raise ExportError("openvino is not installed: pip install 'plugconv-mm[openvino]'") from error
    core = openvino.Core()
    try:
        model = core.read_model(path)
        meta, precision = (model.get_rt_info([key]).astype(str) for key in (METADATA, PRECISION))
    except RuntimeError as error:
        raise ExportError(f'{path} is none of tools/deploy/convert_onnx.py: {str(error).splitlines()[-1]}') from error
    compiled = core.compile_model(model, 'CPU', dict(
        INFERENCE_PRECISION_HINT='bf16' if precision == 'bfloat16' else 'f32',
        INFERENCE_NUM_THREADS=torch.get_num_threads()))

    def run(images: Tensor) -> list[Tensor]:
        results = compiled(images.numpy())
        return [torch.from_numpy(results[output].copy()) for output in compiled.outputs]

    return ExportedFile(f'OpenVINO, {precision}', run, json.loads(meta))


def _inductor(path: Path) -> ExportedFile:
    try:
        model = torch._inductor.aoti_load_package(str(path))
        meta = json.loads(model.get_metadata()['plugconv_mm'])
    except (RuntimeError, KeyError) as error:
        raise ExportError(f'{path} is none of tools/deploy/export_onnx.py: {str(error).splitlines()[0]}') from error

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            outputs = model(images)
        return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]

    return ExportedFile('AOTInductor', run, meta)


_RUNTIMES: dict[str, Callable[[Path], ExportedFile]] = {'.onnx': _onnx, '.xml': _openvino, '.pt2': _inductor}
