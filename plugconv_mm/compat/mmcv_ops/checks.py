"""Checks of the tensors that mmcv hands over, with errors that name the operator and the tensor."""
import torch
from torch import Tensor


def compute_dtype(operator: str, **tensors: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32, or float64 where any of the tensors is.

    Raises:
        TypeError: If a tensor is not of floating point.
        ValueError: If the tensors lie on several devices.
    """
    dtype, first = torch.float32, None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f'{operator}: {name} must be a floating-point tensor, got {tensor.dtype}; '
                            f'convert it with .float()')
        if first is None:
            first = name
        elif tensor.device != tensors[first].device:
            raise ValueError(f'{operator}: {name} is on {tensor.device} but {first} is on {tensors[first].device}; '
                             f'move them to one device')
        if tensor.dtype == torch.float64:
            dtype = torch.float64
    return dtype


def check_shape(operator: str, name: str, tensor: Tensor, expected: tuple[int | None, ...]) -> None:
    """Compare a tensor's shape with the expected sizes; None stands for any size.

    Raises:
        ValueError: If the shape is another.
    """
    if tensor.dim() != len(expected) or any(e not in (None, s) for s, e in zip(tensor.shape, expected, strict=True)):
        wanted = ', '.join('*' if e is None else str(e) for e in expected)
        raise ValueError(f'{operator}: {name} must have shape ({wanted}), got {tuple(tensor.shape)}')


def check_rois(operator: str, rois: Tensor, batch_size: int, numbers: int = 5) -> None:
    """Check the shape (K, ``numbers``) of RoIs and the image indices in their first column.

    Raises:
        ValueError: If the shape is another, or an index names no image of the batch.
    """
    check_shape(operator, 'rois', rois, (None, numbers))
    # The kernels trust this column. Reading it on a GPU would make every call wait for the device.
    if rois.numel() and rois.device.type == 'cpu':
        low, high = (int(value) for value in rois[:, 0].aminmax())
        if low < 0 or high >= batch_size:
            raise ValueError(f'{operator}: the first column of rois holds the index of the image, 0 to '
                             f'{batch_size - 1} for this batch, got values from {low} to {high}')
