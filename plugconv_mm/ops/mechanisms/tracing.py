"""Questions about the recorder of a forward pass: a compiler, or an exporter to another runtime."""
import torch
from torch import Tensor

_in_torchscript = torch.jit.is_tracing  # pyright: ignore[reportPrivateImportUsage]
# Older versions of torch cannot tell an export from a compilation.
_in_torch_export = getattr(torch.compiler, 'is_exporting', lambda: False)


def is_tracing() -> bool:
    """Whether torch.compile, torch.export or the tracer of TorchScript records this pass."""
    return torch.compiler.is_compiling() or _in_torchscript()


def is_exporting() -> bool:
    """Whether this pass becomes a graph of torch.export or ONNX.

    Such a graph goes to other runtimes, takes batches of any size, and has neither complex numbers nor a part for each
    sample of a batch.
    """
    return torch.onnx.is_in_onnx_export() or _in_torch_export()


def side(x: Tensor, dim: int) -> int:
    """The size of a dimension of a map.

    While TorchScript's tracer makes an ONNX graph it is a plain number, so that shapes which depend on it are known.
    """
    size = x.shape[dim]
    return int(size) if _in_torchscript() and is_exporting() else size
