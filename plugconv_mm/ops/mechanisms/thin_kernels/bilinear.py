"""Gradients of any order for a form of the depthwise convolution, from two functions without gradients."""
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Form(NamedTuple):
    """A way to compute a depthwise convolution that keeps the size of a map, with zeros beyond its borders.

    Attributes:
        convolve: The convolution of maps (N, C, H, W) with kernels (C, 1, kh, kw) of odd sizes, in the memory format
            of the maps.
        kernel_gradient: The gradient (C, 1, kh, kw) of kernels from the maps, the output's gradient (N, C, H, W) and
            (kh, kw).
    """
    convolve: Callable[[Tensor, Tensor], Tensor]
    kernel_gradient: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


class Convolution(torch.autograd.Function):
    """The convolution in a form, ``apply(x, weight, form)``. Only the map and the kernel are kept for the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.form = form
        return form.convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = Convolution.apply(grad, weight.flip(2, 3), ctx.form)
        if ctx.needs_input_grad[1]:
            of_weight = KernelGradient.apply(x, grad, tuple(weight.shape[2:]), ctx.form)
        return of_input, of_weight, None


class KernelGradient(torch.autograd.Function):
    """The gradient of kernels, ``apply(x, grad, kernel_size, form)``; linear in both maps, so that its own gradients
    are convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, kernel_size: tuple[int, int], form: Form) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.form = form
        return form.kernel_gradient(x, grad, kernel_size)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, grad = ctx.saved_tensors
        of_x = of_grad = None
        if ctx.needs_input_grad[0]:
            of_x = Convolution.apply(grad, upstream.flip(2, 3), ctx.form)
        if ctx.needs_input_grad[1]:
            of_grad = Convolution.apply(x, upstream, ctx.form)
        return of_x, of_grad, None, None
