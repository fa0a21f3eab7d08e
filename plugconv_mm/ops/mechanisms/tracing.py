"""Who is watching a forward pass: something that records it, to run it elsewhere."""
import torch


def is_tracing() -> bool:
    """Whether torch.compile, torch.export or the tracer of TorchScript records this pass."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_exporting() -> bool:
    """Whether this pass becomes an ONNX graph, which has neither complex numbers nor kernels of a sample's own."""
    return torch.onnx.is_in_onnx_export()
