"""Kernels of a model's layers inside those of the operators that take their places.

============================  ========================================================  ============================
operator                      kernels that it holds                                     what is different at first
============================  ========================================================  ============================
``LargeKernelConv2d``         depthwise, up to its own size                             nothing
``DecomposedLargeKernel…``    depthwise, within M×s or s×M                              nothing
``ParC2d``                    k×1 (direction H) or 1×k (W), with its groups, up to the  k // 2 rows or columns at
                              size of the map                                           either border, as it wraps
                                                                                        around; maps of another size
                                                                                        stretch the kernel
``KWConv2d``                  any, at budgets of 1 and above                            nothing as long as the
                                                                                        temperature is 1
============================  ========================================================  ============================

Large kernels have no batch norms then: those would change what the layer computes. In training, weights are trained as
they are deployed. Cells of a warehouse are the kernels at temperature 1, at which it is built then; without
``KernelWarehouseTemperatureHook``, which lowers it, the attention is not trained.
"""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.large_branches import LargeBranches
from plugconv_mm.plugging.convs import KWConv2d, ParC2d


@torch.no_grad()
def embed(new: nn.Module, old: nn.Module) -> str:
    """Put the kernel and the bias of a convolution into an operator that was made for its place.

    Args:
        new: The operator.
        old: The convolution.

    Returns:
        What is different at first, as the end of a phrase; nothing in most cases.

    Raises:
        ValueError: If there is no exact place for the kernel.
    """
    if getattr(old, 'padding_mode', 'zeros') != 'zeros':
        raise ValueError(f"its map is padded with padding_mode={old.padding_mode!r}, and the operator's with zeros: "
                         "use start='residual'")
    if isinstance(new, LargeBranches):
        return _embed_large(new, old)
    if isinstance(new, ParC2d):
        return _embed_parc(new, old)
    if isinstance(new, KWConv2d):
        return _embed_cells(new, old)
    raise ValueError(f"{type(new).__name__} has no place for a kernel: start='embed' is for LargeKernelConv2d, "
                     "DecomposedLargeKernelConv2d, ParC2d and KWConv2d; use start='residual'")


def conv_with_room(large: Any, kernel_size: tuple[int, int]) -> nn.Conv2d | None:
    """The convolution of a large kernel that is deployed in which kernels of this size have room, if there is one."""
    convs = (getattr(large, name) for name in large.large)
    return next((conv for conv in convs if all(
        side <= room for side, room in zip(kernel_size, conv.kernel_size, strict=True))), None)


@torch.no_grad()
def add_kernel(conv: nn.Conv2d, other: nn.Module) -> None:
    """Add a depthwise convolution of odd kernel sizes to one with larger kernels and a bias."""
    weight: Tensor = other.weight  # type: ignore[assignment]
    top, left = ((room - side) // 2 for side, room in zip(weight.shape[2:], conv.kernel_size, strict=True))
    conv.weight += F.pad(weight, (left, left, top, top))
    if other.bias is not None:
        conv.bias += other.bias  # type: ignore[operator]


def _embed_large(new: LargeBranches, old: nn.Module) -> str:
    new.switch_to_deploy()
    conv = conv_with_room(new, old.kernel_size)  # type: ignore[arg-type]
    convs = [getattr(new, name) for name in new.large]
    if conv is None:
        raise ValueError(f'its kernel of {_by(old.kernel_size)} fits into none of '
                         f'{" and ".join(_by(conv.kernel_size) for conv in convs)}: choose a larger large_kernel, and '
                         'where it is decomposed a small_kernel of its size')
    for parameter in new.parameters():
        nn.init.zeros_(parameter)
    add_kernel(conv, old)
    return ''


def _by(sizes: Any) -> str:
    return 'x'.join(map(str, sizes))


def _embed_parc(new: ParC2d, old: nn.Module) -> str:
    weight: Tensor = old.weight  # type: ignore[assignment]
    axis, across = (2, 3) if new.direction == 'H' else (3, 2)
    length, half = new.weight.shape[axis], weight.shape[axis] // 2
    if weight.shape[across] != 1 or weight.shape[axis] > length:
        raise ValueError(f'ParC along {new.direction} holds kernels of up to {_by(new.weight.shape[2:])} here, and its '
                         f"own is {_by(weight.shape[2:])}: use start='residual'")
    nn.init.zeros_(new.weight)
    # Entry i of the circular kernel weighs the position i ahead, and the last entries those behind.
    for i in range(-half, half + 1):
        new.weight.select(axis, i % length).copy_(weight.select(axis, half + i))
    if new.bias is not None:
        new.bias.copy_(old.bias)  # type: ignore[arg-type]
    if new.position_embedding is not None:
        nn.init.zeros_(new.position_embedding)
    border = f'{half} {"rows" if axis == 2 else "columns"} at either border, and ' if half else ''
    return f', equal but for {border}maps of another {"height" if axis == 2 else "width"} than {length}'


def _embed_cells(new: KWConv2d, old: nn.Module) -> str:
    weight: Tensor = old.weight  # type: ignore[assignment]
    cells = new.warehouse.weights[new.warehouse_index]
    own = new.attention.initial_cell  # type: ignore[union-attr]
    if len(own.unique()) < len(own) or own.max() >= len(cells):
        raise ValueError('its warehouse has fewer cells than its kernel: give cell_num_ratio 1 or more')
    c_out, c_in = cells.shape[1:3]
    out, inner, height, width = weight.shape
    blocks = weight.view(out // c_out, c_out, inner // c_in, c_in, height * width).permute(4, 0, 2, 1, 3)
    cells[own] = blocks.reshape(len(own), c_out, c_in, 1, 1)
    if new.bias is not None:
        new.bias.copy_(old.bias)  # type: ignore[arg-type]
    new.warehouse.set_temperature(1.)
    return ', equal at temperature 1'
