"""Large depthwise kernels, decomposed into a tall, a wide and a small one.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
https://arxiv.org/abs/2207.03620.
"""
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.batch_norm import fold_batch_norm, folds
from plugconv_mm.ops.mechanisms.long_kernels import LONG, LongConv, tall_and_wide
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.token_chunks import token_chunks_pay


class _Branch(nn.Sequential):
    """A depthwise convolution of odd kernel sizes and its normalisation."""
    conv: nn.Conv2d
    bn: nn.Module

    def __init__(self, channels: int, kernel_size: tuple[int, int], norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        height, width = kernel_size
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=(height // 2, width // 2), groups=channels,
                              bias=False)
        self.bn = norm_layer(channels)


class DecomposedLargeKernelConv2d(nn.Module):
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

    Attributes:
        deployed: Whether two biased convolutions are all that is left.

    Raises:
        ValueError: If a kernel size is even or not positive, or the input is not (N, C, H, W).

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

    def __init__(self, channels: int, kernel_size: int, small_kernel: int = 5,
                 norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        for name, size in (('kernel_size', kernel_size), ('small_kernel', small_kernel)):
            if size < 1 or size % 2 == 0:
                raise ValueError(f'{name} must be odd and positive, so that kernels share a centre, got {size}')
        self.channels, self.kernel_size, self.small_kernel = channels, kernel_size, small_kernel
        self.deployed = False
        self.vertical: _Branch | nn.Conv2d = _Branch(channels, (kernel_size, small_kernel), norm_layer)
        self.horizontal: _Branch | nn.Conv2d = _Branch(channels, (small_kernel, kernel_size), norm_layer)
        self.small_conv: _Branch | None = None
        if small_kernel < kernel_size:
            self.small_conv = _Branch(channels, (small_kernel, small_kernel), norm_layer)

    def _plain_layers(self) -> tuple[list[nn.Conv2d], list[nn.Module]]:
        """Convolutions and normalisations, or none, if the convolutions have to be called."""
        parts = [part for part in (self.vertical, self.horizontal, self.small_conv) if part is not None]
        convs, norms = [], []
        for part in parts:
            conv = part if self.deployed else cast(_Branch, part).conv if is_plain(part, nn.Sequential) else None
            if conv is None or not is_plain(conv, nn.Conv2d) or (conv.bias is None) == self.deployed:
                return [], []
            convs.append(conv)
            if not self.deployed:
                norms.append(part.bn)
        return convs, norms

    def _folded(self, convs: list[nn.Conv2d], norms: list[nn.Module]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Kernel (C, 1, M, s) and bias (C) of the tall convolution, kernel (C, 1, s, M) and bias of the wide one."""
        kernels: list[Tensor] = [conv.weight for conv in convs]
        biases: list[Any] = [conv.bias for conv in convs]
        for i, norm in enumerate(norms):
            scale, biases[i] = fold_batch_norm(cast(_BatchNorm, norm))
            kernels[i] = kernels[i] * scale[:, None, None, None]
        if len(convs) == 3:
            margin = (self.kernel_size - self.small_kernel) // 2
            padded = F.pad(kernels[2], (0, 0, margin, margin))
            kernels[0] = kernels[0] + padded.view(kernels[0].shape)  # whose shape TorchScript's exporter then knows
            biases[0] = biases[0] + biases[2]
        return kernels[0], biases[0], kernels[1], biases[1]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, C, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected (N, {self.channels}, H, W), got {tuple(x.shape)}')
        on_cpu = x.device.type == 'cpu'
        if on_cpu:  # wide depthwise kernels are over ten times slower there on contiguous maps
            x = x.contiguous(memory_format=torch.channels_last)
        long_on_cpu = on_cpu and self.kernel_size >= LONG and autocast_dtype(x) is None
        convs, norms = self._plain_layers()
        if convs and all(map(folds, norms)):
            tall, tall_bias, wide, wide_bias = self._folded(convs, norms)
            if long_on_cpu and token_chunks_pay(x) and x.dtype == torch.float32:
                return tall_and_wide(x, tall, wide, tall_bias + wide_bias)
            long, short = self.kernel_size // 2, self.small_kernel // 2
            y = F.conv2d(x, tall, tall_bias + wide_bias, padding=(long, short), groups=self.channels)
            return y + F.conv2d(x, wide, padding=(short, long), groups=self.channels)
        if convs and long_on_cpu:
            y = norms[0](LongConv.apply(x, convs[0].weight)) + norms[1](LongConv.apply(x, convs[1].weight))
        else:
            y = self.vertical(x) + self.horizontal(x)
        return y if self.small_conv is None else y + self.small_conv(x)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # A loader that is not strict would pass over the other form's names and leave the kernels as they are.
        if self.deployed and f'{prefix}vertical.conv.weight' in state_dict:
            raise ValueError(
                f'the large kernel {prefix!r} is deployed, and these weights are not: load them before '
                'switch_to_deploy(), or fold them first with tools/model_converters/switch_to_deploy.py')
        if not self.deployed and f'{prefix}vertical.weight' in state_dict:
            raise ValueError(
                f'these weights of the large kernel {prefix!r} are deployed, and the module is not: build SLaK with '
                'deploy=True, or call switch_to_deploy() before loading them')
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold everything into two biased convolutions, for good; the output stays that of evaluation mode.

        The parameters are then ``vertical.weight``, ``vertical.bias``, ``horizontal.weight`` and ``horizontal.bias``.

        Raises:
            ValueError: If a normalisation is not a BatchNorm with running statistics, or if a layer is wrapped,
                parametrised or hooked, so that its weights are not all that it computes with.
        """
        if self.deployed:
            return
        convs, norms = self._plain_layers()
        if not convs:
            raise ValueError('only plain convolutions can be folded: merge or remove the adapters, parametrisations '
                             f'and hooks of the large kernel first, got {self}')
        for norm in norms:
            if getattr(norm, 'running_mean', None) is None:
                raise ValueError('only BatchNorm with running statistics can be folded into a convolution, '
                                 f'got {type(norm).__name__}')
            if not is_plain(norm, _BatchNorm, nn.SyncBatchNorm):
                raise ValueError('only a plain BatchNorm can be folded into a convolution: remove the hooks and '
                                 f'parametrisations of {norm} first')
        tall, tall_bias, wide, wide_bias = self._folded(convs, norms)
        self.vertical = self._deployed_conv(convs[0], tall, tall_bias)
        self.horizontal = self._deployed_conv(convs[1], wide, wide_bias)
        self.small_conv = None
        self.deployed = True

    def _deployed_conv(self, old: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
        """Convolution of this weight and bias in the place of another."""
        height, width = weight.shape[2:]
        conv = nn.Conv2d(self.channels, self.channels, (height, width), padding=(height // 2, width // 2),
                         groups=self.channels, device=weight.device, dtype=weight.dtype)
        conv.weight.copy_(weight)
        cast(Tensor, conv.bias).copy_(bias)
        return conv.requires_grad_(old.weight.requires_grad).train(self.training)
