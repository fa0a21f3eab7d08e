"""The interface of ParC's backends."""
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Geometry:
    """Axis and sizes of a circular convolution.

    Attributes:
        axis: Dimension of the map (B, C, H, W) that the kernel runs along, 2 or 3.
        length: N, the map's side along it.
        groups: Groups of channels.
        group_width: Channels of a group; 1 is depthwise.
    """
    axis: int
    length: int
    groups: int
    group_width: int


class Backend(ABC):
    """One form of the circular convolution: its kernel and its product."""

    def compute_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The data type to compute an output of type `dtype` in."""
        return dtype

    @abstractmethod
    def prepare(self, stretched: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
        """The kernel in the backend's own form.

        Args:
            stretched: (C, C / groups, N), in float32 or better.
            geometry: Axis and sizes.
            dtype: The type to compute in.
        """

    @abstractmethod
    def apply(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        """The circular correlation of `x` with the kernel, shaped as `x`, in any memory layout.

        Args:
            x: (B, C, H, W), in the type to compute in.
            kernel: What :meth:`prepare` returned.
            geometry: Axis and sizes.
        """

    def channels_at_once(self, x: Tensor, geometry: Geometry) -> int:
        """The number of channels of `x` that inference convolves at a time: all, unless fewer are faster."""
        return x.shape[1]
