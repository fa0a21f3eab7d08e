"""KernelWarehouse: dynamic convolutions whose kernels are mixed, cell by cell, from a shared warehouse.

Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", https://arxiv.org/abs/2406.07879, and
"KernelWarehouse: Towards Parameter-Efficient Dynamic Convolution", https://arxiv.org/abs/2308.08361.
"""
from plugconv_mm.ops.kernel_warehouse.attention import KWAttention, pool
from plugconv_mm.ops.kernel_warehouse.conv import KWConv2d
from plugconv_mm.ops.kernel_warehouse.linear import KWLinear
from plugconv_mm.ops.kernel_warehouse.warehouse import KernelWarehouse

__all__ = ['KWAttention', 'KWConv2d', 'KWLinear', 'KernelWarehouse', 'pool']
