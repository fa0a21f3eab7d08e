"""ParC: position-aware circular convolution, and Fast-ParC.

- ParC-Net: Position Aware Circular Convolution with Merits from ConvNets and Transformer (ECCV 2022),
  https://arxiv.org/abs/2203.03952
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

A kernel as long as the map, wrapped around, along one axis; a learned position embedding tells it where it is::

    y[n, c, i, j] = b[c] + sum_k sum_c' w[c, c', k] (x + pe)[n, c', (i + k) mod H, j]        (along H)

The backends, each in a file of ``backends``, compute this product in different forms: ``spatial`` (a convolution of the
tiled map), ``fft`` (Fast-ParC) and ``gemm`` (a product with the circulant matrix). They agree up to rounding and differ
in cost; ``auto`` takes the one that ``cost`` expects to be the fastest.
"""
from plugconv_mm.ops.parc.functional import parc_conv2d
from plugconv_mm.ops.parc.layers import ParC2d, ParCHW2d, ParCMixer

__all__ = ['ParC2d', 'ParCHW2d', 'ParCMixer', 'parc_conv2d']
