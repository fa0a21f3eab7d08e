"""The state of autocast on any device."""
import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type in which autocast computes on the device of `x`, or None where it is off or, as on meta, unknown."""
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
