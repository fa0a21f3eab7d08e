"""ParC by discrete Fourier transforms that are products with real matrices."""
import torch
from torch import Tensor

from plugconv_mm.ops.mechanisms.dft import irdft_matrix, rdft_matrix
from plugconv_mm.ops.parc.backends.base import Backend, Geometry


class DFT(Backend):
    """Fast-ParC for graphs without FFTs and complex numbers: real parts above imaginary ones, matrix products."""

    def prepare(self, stretched: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
        """(N // 2 + 1, groups, 2 · width, 2 · width), a complex product for each frequency, with width = C / groups."""
        width = geometry.group_width
        spectrum = stretched.to(dtype) @ rdft_matrix(geometry.length, stretched)
        spectrum = spectrum * geometry.length**0.5
        real, imag = spectrum.reshape(geometry.groups, width, width, 2, geometry.length // 2 + 1).permute(3, 4, 0, 1, 2)
        return torch.cat((torch.cat((real, imag), dim=3), torch.cat((-imag, real), dim=3)), dim=2)

    def apply(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        groups, width, length = geometry.groups, geometry.group_width, geometry.length
        lines = x.transpose(2, 3) if geometry.axis == 2 else x
        spectrum = lines @ rdft_matrix(length, x)
        spectrum = spectrum.view(-1, groups, width, lines.shape[2], 2, length // 2 + 1)
        mixed = kernel @ spectrum.permute(0, 5, 1, 4, 2, 3).flatten(3, 4)
        mixed = mixed.unflatten(3, (2, width)).permute(0, 2, 4, 5, 3, 1).flatten(4).flatten(1, 2)
        lines = mixed @ irdft_matrix(length, x)
        return lines.transpose(2, 3) if geometry.axis == 2 else lines
