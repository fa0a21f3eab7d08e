"""Who is watching a forward pass: something that records it, to run it elsewhere."""
import torch


def traced() -> bool:
    """Whether torch.compile, torch.export or the tracer of TorchScript records this pass."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def exporting() -> bool:
    """Whether this pass becomes an ONNX graph, which has neither complex numbers nor kernels of a sample's own."""
    return torch.onnx.is_in_onnx_export()
