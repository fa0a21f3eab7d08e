"""ParC as a product with the circulant matrix of its kernel."""
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from plugconv_mm.ops.mechanisms.tracing import is_exporting, is_tracing
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
            return _product(kernel, columns, True).view(x.shape)
        if geometry.group_width == 1:
            return _product(kernel, x, False)
        rows = x.view(batch, groups, geometry.group_width, height, width).transpose(2, 3)
        rows = rows.reshape(batch, groups, height, geometry.group_width * width)
        rows = _product(kernel, rows, False)
        return rows.view(batch, groups, height, geometry.group_width, width).transpose(2, 3).reshape(x.shape)


def _product(kernel: Tensor, maps: Tensor, columns: bool) -> Tensor:
    """The products of matrices (G, N, N) with the columns of maps (B, G, N, L), or with the rows of (B, G, L, N)."""
    # Who counts operations does not know products that are written into a tensor.
    if maps.device.type == 'cpu' and not is_tracing() and not is_in_torch_dispatch_mode():
        if torch.is_grad_enabled() and (kernel.requires_grad or maps.requires_grad):
            return _Product.apply(kernel, maps, columns)
        return _products(kernel, maps, columns)
    return torch.matmul(kernel, maps) if columns else torch.matmul(maps, kernel.transpose(1, 2))


def _products(kernel: Tensor, maps: Tensor, columns: bool) -> Tensor:
    """The same, image by image: one product of all copies the matrices for each image, and keeps the copies."""
    out = maps.new_empty(maps.shape)
    for image, result in zip(maps, out, strict=True):
        torch.bmm(*((kernel, image) if columns else (image, kernel.mT)), out=result)
    return out


class _Product(torch.autograd.Function):
    """The products image by image, with their gradients."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, maps: Tensor, columns: bool) -> Tensor:
        ctx.columns = columns
        ctx.save_for_backward(kernel, maps)
        return _products(kernel, maps, columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        kernel, maps = ctx.saved_tensors
        grad_kernel = grad_maps = None
        if ctx.needs_input_grad[0]:
            grad_kernel = torch.zeros_like(kernel)
            for image, g in zip(maps, grad, strict=True):
                grad_kernel.baddbmm_(*((g, image.mT) if ctx.columns else (g.mT, image)))
        if ctx.needs_input_grad[1]:
            grad_maps = _products(kernel.mT, grad, ctx.columns)
        return grad_kernel, grad_maps, None
