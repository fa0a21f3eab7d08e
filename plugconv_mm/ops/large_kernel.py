"""Large depthwise kernels, whole, and decomposed into a tall and a wide one; each with a small one beside.

- Ding et al., "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs",
  https://arxiv.org/abs/2203.06717
- Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
  https://arxiv.org/abs/2207.03620
"""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.batch_norm import folds
from plugconv_mm.ops.mechanisms.large_branches import Branch, LargeBranches
from plugconv_mm.ops.mechanisms.long_kernels import LONG, LongConv, depthwise, tall_and_wide
from plugconv_mm.ops.mechanisms.thin_kernels.forms import convolve_each, convolve_sum
from plugconv_mm.ops.mechanisms.token_chunks import token_chunks_pay


class DecomposedLargeKernelConv2d(LargeBranches):
    """Depthwise M×s, s×M and s×s convolutions, each normalised, summed: an M×M kernel at the price of three thin ones.

    In evaluation mode every BatchNorm is folded into its kernel and the s×s kernel is added to the middle of the M×s
    one, so that two convolutions are left; :meth:`switch_to_deploy` makes that final. Stride 1, same-size output.

    Shapes: (N, C, H, W) -> (N, C, H, W), of any H and W. On a CPU the output is channels-last in memory, the layout
    in which these convolutions are fast there.

    Cost: N·C·H·W·(2·M·s + s²) multiply-adds in training, N·C·H·W·2·M·s in evaluation; M·M would be dense.

    Paper: SLaK, https://arxiv.org/abs/2207.03620.

    The kernels are folded and convolved by their weights as long as the branches, convolutions and normalisations are
    plain; those that are wrapped, parametrised or hooked are called.

    Args:
        channels: Channels in and out, C.
        kernel_size: M, odd.
        small_kernel: s, odd. There is no s×s branch where s is not below M.
        norm_layer: Makes the normalisation of a branch from its channels.
        form: How the convolutions of plain layers are computed: ``'conv'``, by PyTorch's convolution; ``'banded'``, by
            products with banded matrices; ``'fft'``, by transforms along the long side, in float32 or float64;
            ``'auto'``, ``'conv'``, or the form that was measured to be the fastest (:func:`autotune`). Compilers and
            exporters record ``'conv'``. It may be set later, as an attribute.

    Attributes:
        deployed: Whether two biased convolutions are all that is left.

    Raises:
        ValueError: If a kernel size is even or not positive, there is no form of this name, or the input is not
            (N, C, H, W).
        TypeError: If the types of input and kernels differ, in a form other than ``'conv'``.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import DecomposedLargeKernelConv2d
        >>> conv = DecomposedLargeKernelConv2d(8, kernel_size=31).eval()
        >>> x = torch.rand(2, 8, 20, 40)
        >>> y = conv(x)
        >>> conv.switch_to_deploy()
        >>> sorted(conv.state_dict())
        ['horizontal.bias', 'horizontal.weight', 'vertical.bias', 'vertical.weight']
        >>> torch.allclose(conv(x), y, atol=1e-4)
        True
    """

    large = ('vertical', 'horizontal')
    unlike = ('large_conv', 'whole M×M kernels, and the module has its kernels decomposed into M×s and s×M, into which '
              'no trained M×M kernel can be split: build the backbone with decomposed=False (LargeKernelConv2d), or '
              'take a checkpoint that was trained with --Decom True')

    def __init__(self, channels: int, kernel_size: int, small_kernel: int = 5,
                 norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d, form: str = 'auto') -> None:
        super().__init__(channels, kernel_size, small_kernel, form)
        self.vertical: Branch | nn.Conv2d = Branch(channels, (kernel_size, small_kernel), norm_layer)
        self.horizontal: Branch | nn.Conv2d = Branch(channels, (small_kernel, kernel_size), norm_layer)
        self._add_small(norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, C, H, W)."""
        self._check(x)
        on_cpu = x.device.type == 'cpu'
        if on_cpu:  # wide depthwise kernels are over ten times slower there on contiguous maps
            x = x.contiguous(memory_format=torch.channels_last)
        long_on_cpu = on_cpu and self.kernel_size >= LONG and autocast_dtype(x) is None
        convs, norms = self._plain_layers()
        if not convs:
            return self._called(x)

        def conv_sum(x: Tensor, tall: Tensor, wide: Tensor, bias: Tensor) -> Tensor:
            if long_on_cpu and token_chunks_pay(x) and x.dtype == torch.float32:
                return tall_and_wide(x, tall, wide, bias)
            return depthwise(x, tall, bias, convs[0].padding) + depthwise(x, wide, None, convs[1].padding)

        def conv_each(x: Tensor, *kernels: Tensor) -> list[Tensor]:
            return [LongConv.apply(x, kernel) if long_on_cpu and i < 2 else
                    F.conv2d(x, kernel, None, padding=convs[i].padding, groups=len(kernel))
                    for i, kernel in enumerate(kernels)]

        if all(map(folds, norms)):
            (tall, tall_bias), (wide, wide_bias) = self._folded(convs, norms)
            return convolve_sum(x, (tall, wide), tall_bias + wide_bias, self.form, conv_sum)
        return self._total(norms, convolve_each(x, [conv.weight for conv in convs], self.form, conv_each))


class LargeKernelConv2d(LargeBranches):
    """Depthwise M×M convolution and, beside it, an s×s one, each normalised, summed.

    In evaluation mode the BatchNorms are folded into the kernels and the s×s kernel is added to the middle of the M×M
    one, so that one convolution is left; :meth:`switch_to_deploy` makes that final. Stride 1, same-size output.

    Shapes: (N, C, H, W) -> (N, C, H, W), of any H and W. On a CPU the output is channels-last in memory, the layout
    in which these convolutions are fast there.

    Cost: N·C·H·W·(M² + s²) multiply-adds in training, N·C·H·W·M² in evaluation.

    Paper: RepLKNet, https://arxiv.org/abs/2203.06717; the kernels of SLaK without decomposition.

    The kernels are folded and convolved by their weights as those of :class:`DecomposedLargeKernelConv2d` are.

    Args:
        channels: Channels in and out, C.
        kernel_size: M, odd.
        small_kernel: s, odd, or None. There is no s×s branch where s is None or, odd or not, not below M.
        norm_layer: Makes the normalisation of a branch from its channels.
        form: As that of :class:`DecomposedLargeKernelConv2d`; ``'fft'`` transforms along both sides.

    Attributes:
        deployed: Whether one biased convolution is all that is left.

    Raises:
        ValueError: If a kernel size is even or not positive, there is no form of this name, or the input is not
            (N, C, H, W).
        TypeError: If the types of input and kernels differ, in a form other than ``'conv'``.

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import LargeKernelConv2d
        >>> conv = LargeKernelConv2d(8, kernel_size=31).eval()
        >>> x = torch.rand(2, 8, 20, 40)
        >>> y = conv(x)
        >>> conv.switch_to_deploy()
        >>> sorted(conv.state_dict())
        ['large_conv.bias', 'large_conv.weight']
        >>> torch.allclose(conv(x), y, atol=1e-4)
        True
    """

    large = ('large_conv', )
    unlike = ('vertical', 'decomposed into M×s and s×M kernels, and the module has whole M×M ones: build the backbone '
              'with decomposed=True (DecomposedLargeKernelConv2d)')

    def __init__(self, channels: int, kernel_size: int, small_kernel: int | None = 5,
                 norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d, form: str = 'auto') -> None:
        super().__init__(channels, kernel_size, small_kernel if (small_kernel or 0) < kernel_size else None, form)
        self.large_conv: Branch | nn.Conv2d = Branch(channels, (kernel_size, kernel_size), norm_layer)
        self._add_small(norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, C, H, W)."""
        self._check(x)
        if x.device.type == 'cpu':
            x = x.contiguous(memory_format=torch.channels_last)
        convs, norms = self._plain_layers()
        if not convs:
            return self._called(x)

        def conv_sum(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
            return depthwise(x, kernel, bias, convs[0].padding)

        def conv_each(x: Tensor, *kernels: Tensor) -> list[Tensor]:
            return [conv_sum(x, kernels[0], None), *(
                F.conv2d(x, kernel, None, padding=convs[1].padding, groups=len(kernel)) for kernel in kernels[1:])]

        if all(map(folds, norms)):
            (kernel, bias), = self._folded(convs, norms)
            return convolve_sum(x, (kernel, ), bias, self.form, conv_sum)
        return self._total(norms, convolve_each(x, [conv.weight for conv in convs], self.form, conv_each))
