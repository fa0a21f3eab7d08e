"""ParC as a product with the circulant matrix of its kernel."""
import torch
from torch import Tensor

from plugconv_mm.ops.mechanisms.tracing import is_exporting
from plugconv_mm.ops.parc.backends.base import Backend, Geometry


class GEMM(Backend):
    """A product with the kernel's circulant matrix: O(N²) a line, on matrix units."""

    def prepare(self, stretched: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
        """(groups, width · N, width · N), with width = C / groups."""
        n, groups, width = geometry.length, geometry.groups, geometry.group_width
        if is_exporting():
            # One gather, where an exporter would take the windows below apart, or not know their number. Places of two
            # kernels in a row need no remainder, which ONNX does not take of a length that it does not know.
            place = torch.arange(n, device=stretched.device)
            circulant = torch.cat((stretched, stretched), dim=-1)[..., place + n - place[:, None]]
        else:
            # Row i of a circulant is the kernel shifted i places: the windows of (w[1:], w), in reverse.
            circulant = torch.cat((stretched[..., 1:], stretched), dim=-1).unfold(-1, n, 1).flip(-2)
        circulant = circulant.unflatten(0, (groups, width)).transpose(2, 3)
        # Not before: the gradients of N windows are summed in the type of the stretched kernel.
        return circulant.reshape(groups, width * n, width * n).to(dtype)

    def apply(self, x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
        batch, _, height, width = x.shape
        groups = geometry.groups
        if geometry.axis == 2:
            columns = x.reshape(batch, groups, geometry.group_width * height, width)
            return torch.matmul(kernel, columns).view(x.shape)
        if geometry.group_width == 1:
            return torch.matmul(x, kernel.transpose(1, 2))
        rows = x.view(batch, groups, geometry.group_width, height, width).transpose(2, 3)
        rows = rows.reshape(batch, groups, height, geometry.group_width * width)
        rows = torch.matmul(rows, kernel.transpose(1, 2))
        return rows.view(batch, groups, height, geometry.group_width, width).transpose(2, 3).reshape(x.shape)
