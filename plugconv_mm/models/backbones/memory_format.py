"""The memory format in which convolutions of a CPU are fast."""
import torch
from torch import Tensor


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Lay out `x` so that it passes from one convolution of a CPU to the next without being reordered."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == 'cpu' else x
