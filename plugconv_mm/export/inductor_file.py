"""Packages of AOTInductor: compiled code for who stays with PyTorch, without Python in the forward pass."""
import json
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.errors import ExportError
from plugconv_mm.export.comparison import compare_with_torch
from plugconv_mm.export.preconditions import check_destination, check_torch
from plugconv_mm.export.prepared import prepare
from plugconv_mm.export.report import ExportReport
from plugconv_mm.export.runtimes import open_exported


def export_inductor(model: nn.Module, path: str | os.PathLike, shape: tuple[int, int], **options: Any) -> ExportReport:
    """Write a model as a package of AOTInductor, ``NAME.pt2``, compiled for the processor that it is made on.

    It is checked as a file of :func:`plugconv_mm.export.export_onnx`, has the same inputs, outputs and metadata, and is
    loaded by ``torch._inductor.aoti_load_package``.

    Args:
        model: On the CPU, in float32.
        path: The package to write; its folder must exist.
        shape: Height and width of the images, in pixels.
        **options: Those of :func:`~plugconv_mm.export.export_onnx`, but for ``opset``.

    Raises:
        ExportError: The model or the size cannot be exported, or the outputs of the package differ from PyTorch's.
    """
    path, shape = Path(path), tuple(shape)
    check_destination(path)
    check_torch()
    prepared = prepare(model, shape, **options)
    metadata = json.dumps({key: json.loads(value) for key, value in prepared.metadata.items()})
    with atomic_write(path) as file, ExitStack() as stack, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        part = Path(f'{file.name}.pt2')
        stack.callback(part.unlink, missing_ok=True)
        try:
            program = torch.export.export(prepared.deployed, (prepared.images[:2], ),
                                          dynamic_shapes=(prepared.variables, ))
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(part), inductor_configs={'aot_inductor.metadata': dict(plugconv_mm=metadata)})
        except Exception as error:
            raise ExportError(f'AOTInductor cannot compile this model: {type(error).__name__}: '
                              f'{str(error).strip().splitlines()[0]}') from error
        report = compare_with_torch(prepared, path, open_exported(part).run, 'AOTInductor')
        file.write(part.read_bytes())
    return report
