"""Files in the runtimes that they are made for, as functions from images to outputs."""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plugconv_mm.errors import ExportError
from plugconv_mm.export.onnx_runtime import open_session


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
    """Load a file into its runtime, which its suffix tells: ``.onnx``.

    Raises:
        ExportError: There is no such file, it has another suffix, or it cannot be loaded.
    """
    if not path.is_file():
        raise ExportError(f'there is no file {path}')
    if path.suffix not in _RUNTIMES:
        raise ExportError(f'{path} should end in {", ".join(_RUNTIMES)}')
    return _RUNTIMES[path.suffix](path)


def _onnx(path: Path) -> ExportedFile:
    try:
        session = open_session(path)
    except Exception as error:
        raise ExportError(f'ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}') from error
    meta = session.get_modelmeta().custom_metadata_map
    return ExportedFile('ONNX Runtime', lambda images: [
        torch.from_numpy(output) for output in session.run(None, {'input': images.numpy()})],
        {key: json.loads(value) for key, value in meta.items()})


_RUNTIMES: dict[str, Callable[[Path], ExportedFile]] = {'.onnx': _onnx}
