"""Operators in plain PyTorch."""
from plugconv_mm.ops.deploy import deploy_state_dict, switch_to_deploy
from plugconv_mm.ops.global_local_filter import GlobalLocalFilter
from plugconv_mm.ops.gnconv import GnConv2d
from plugconv_mm.ops.h_mhsa import HMHSA
from plugconv_mm.ops.kernel_warehouse import KernelWarehouse, KWConv2d, KWLinear
from plugconv_mm.ops.large_kernel import DecomposedLargeKernelConv2d, LargeKernelConv2d
from plugconv_mm.ops.layer_norm import LayerNorm2d
from plugconv_mm.ops.mechanisms.tuning import autotune
from plugconv_mm.ops.parc import ParC2d, ParCHW2d, ParCMixer, parc_conv2d

__all__ = ['DecomposedLargeKernelConv2d', 'GlobalLocalFilter', 'GnConv2d', 'HMHSA', 'KernelWarehouse', 'KWConv2d',
           'KWLinear', 'LargeKernelConv2d', 'LayerNorm2d', 'ParC2d', 'ParCHW2d', 'ParCMixer', 'autotune',
           'deploy_state_dict', 'parc_conv2d', 'switch_to_deploy']
