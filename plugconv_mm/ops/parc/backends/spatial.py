"""ParC as a convolution."""
import torch
import torch.nn.functional as F
from torch import Tensor

from plugconv_mm.ops.parc.backends.base import Backend, Geometry


class Spatial(Backend):
    """A convolution of the map, which is tiled once along the kernel's axis: O(N²) a line, for every runtime."""

    def prepare(self, stretched: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
        """(C, C / groups, N, 1) along H, (C, C / groups, 1, N) along W."""
        return stretched.unsqueeze(3 if geometry.axis == 2 else 2).to(dtype)

    def apply(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        tiled = torch.cat((x, x.narrow(geometry.axis, 0, geometry.length - 1)), dim=geometry.axis)
        return F.conv2d(tiled, kernel, groups=geometry.groups)
