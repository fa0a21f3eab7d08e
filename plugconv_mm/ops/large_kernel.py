"""Large depthwise kernels, decomposed into a tall, a wide and a small one.

Liu et al., "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
https://arxiv.org/abs/2207.03620.
"""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.batch_norm import fold_batch_norm, folds
from plugconv_mm.ops.mechanisms.token_chunks import token_chunks_pay

# From this length on the layout in which a CPU convolves tall kernels best pays for the way into it and back, and
# gradients of kernels are faster by matrix products.
_LONG = 21
# So many columns of a map go into one product, of which a band along the diagonal is needed.
_COLUMNS = 64
# Maps of so many bytes are convolved at a time, so that all copies of them stay in the cache.
_CHUNK_BYTES = 4 * 2**20


def _tall_and_wide(x: Tensor, tall: Tensor, wide: Tensor, bias: Tensor) -> Tensor:
    """The depthwise tall and wide convolutions of x, summed; channels-last in memory.

    CPUs have a fast path for tall kernels on contiguous maps, twice as fast as on channels-last ones. Wide kernels
    have none, but become tall on the transposed map.
    """
    long, short = tall.shape[2] // 2, tall.shape[3] // 2
    out = torch.empty_like(x, memory_format=torch.channels_last)
    step = max(_CHUNK_BYTES // (x[:, 0].numel() * x.element_size()) // 16 * 16, 16)
    for part, target, t, w, b in zip(*(tensor.split(step, 1) for tensor in (x, out)),
                                     *(tensor.split(step) for tensor in (tall, wide.mT, bias)), strict=True):
        part = part.contiguous()
        y = F.conv2d(part, t, b, padding=(long, short), groups=len(t))
        y += F.conv2d(part.mT.contiguous(), w, padding=(long, short), groups=len(t)).mT
        target.copy_(y)
    return out


def _kernel_gradient(x: Tensor, grad: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The gradient of a depthwise kernel, (C, 1, kh, kw), from the input and the output's gradient, both (N, C, H, W).

    For each offset u along the short side the products of all columns with all columns are summed over rows and
    samples by a matrix product; those that are v columns apart lie on one diagonal and make the gradient at (u, v).
    """
    kh, kw = kernel_size
    if kh > kw:
        return _kernel_gradient(x.mT, grad.mT, (kw, kh)).mT
    n, c, h, w = x.shape
    ph, pw = kh // 2, kw // 2
    grad = grad.permute(1, 3, 0, 2).reshape(c, w, n * h).contiguous()
    x = F.pad(x.permute(1, 0, 2, 3), (0, 0, ph, ph))
    of_rows = []
    for u in range(kh):
        shifted = x[:, :, u:u + h].reshape(c, n * h, w)
        total = 0
        for start in range(0, w, _COLUMNS):
            stop = min(start + _COLUMNS, w)
            low, high = max(start - pw, 0), min(stop + pw, w)
            products = F.pad(grad[:, start:stop] @ shifted[:, :, low:high], (low - start + pw, stop + pw - high))
            rows, columns, one = products.stride()
            total = total + products.as_strided((c, stop - start, kw), (rows, columns + one, one)).sum(1)
        of_rows.append(total)
    return torch.stack(of_rows, 1)[:, None]


class _LongConv(torch.autograd.Function):
    """A depthwise convolution with a long kernel on a CPU, whose own gradient of the kernel takes over ten times the
    convolution's time."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        _, _, *kernel_size = weight.shape
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = torch.nn.grad.conv2d_input(
                x.shape, weight, grad, padding=tuple(size // 2 for size in kernel_size), groups=len(weight))
        if ctx.needs_input_grad[1]:
            of_weight = _kernel_gradient(x, grad, tuple(kernel_size))
        return of_input, of_weight


class DecomposedLargeKernelConv2d(nn.Module):
    """Depthwise M×s, s×M and s×s convolutions, each normalised, summed: an M×M kernel at the price of three thin ones.

    In evaluation mode every BatchNorm is folded into its kernel and the s×s kernel is added to the middle of the M×s
    one, so that two convolutions are left; :meth:`switch_to_deploy` makes that final. Stride 1, same-size output.

    Shapes: (N, C, H, W) -> (N, C, H, W), of any H and W. On a CPU the output is channels-last in memory, the layout
    in which these convolutions are fast there.

    Cost: N·C·H·W·(2·M·s + s²) multiply-adds in training, N·C·H·W·2·M·s in evaluation; M·M would be dense.

    Paper: SLaK, https://arxiv.org/abs/2207.03620.

    Args:
        channels: Channels in and out, C.
        kernel_size: M, odd.
        small_kernel: s, odd. There is no s×s branch where s is not below M.
        norm_layer: Makes the normalisation of a branch from its channels.

    Raises:
        ValueError: If a kernel size is even or not positive, or if a normalisation cannot be folded on deployment.

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

        def branch(height: int, width: int) -> nn.Sequential:
            conv = nn.Conv2d(channels, channels, (height, width), padding=(height // 2, width // 2), groups=channels,
                             bias=False)
            module = nn.Sequential()
            module.add_module('conv', conv)
            module.add_module('bn', norm_layer(channels))
            return module

        self.vertical: nn.Module = branch(kernel_size, small_kernel)
        self.horizontal: nn.Module = branch(small_kernel, kernel_size)
        self.small_conv = branch(small_kernel, small_kernel) if small_kernel < kernel_size else None

    @property
    def deployed(self) -> bool:
        """Whether two biased convolutions are all that is left."""
        return isinstance(self.vertical, nn.Conv2d)

    def _branches(self) -> list[nn.Sequential]:
        return [b for b in (self.vertical, self.horizontal, self.small_conv) if b is not None]

    def folded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Kernel (C, 1, M, s) and bias (C) of the tall convolution, kernel (C, 1, s, M) and bias of the wide one."""
        if self.deployed:
            return self.vertical.weight, self.vertical.bias, self.horizontal.weight, self.horizontal.bias
        kernels, biases = [], []
        for branch in self._branches():
            scale, shift = fold_batch_norm(branch.bn)
            kernels.append(branch.conv.weight * scale[:, None, None, None])
            biases.append(shift)
        if self.small_conv is not None:
            margin = (self.kernel_size - self.small_kernel) // 2
            padded = F.pad(kernels[2], (0, 0, margin, margin))
            kernels[0] = kernels[0] + padded.view(kernels[0].shape)  # whose shape TorchScript's exporter then knows
            biases[0] = biases[0] + biases[2]
        return kernels[0], biases[0], kernels[1], biases[1]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected (N, {self.channels}, H, W), got {tuple(x.shape)}')
        if x.device.type == 'cpu':  # wide depthwise kernels are over ten times slower there on contiguous maps
            x = x.contiguous(memory_format=torch.channels_last)
        if not self.deployed and not all(folds(branch.bn) for branch in self._branches()):
            if self.kernel_size >= _LONG and x.device.type == 'cpu' and not torch.is_autocast_enabled('cpu'):
                tall, wide = (branch.bn(_LongConv.apply(x, branch.conv.weight)) for branch in (
                    self.vertical, self.horizontal))
                y = tall + wide
            else:
                y = self.vertical(x) + self.horizontal(x)
            return y if self.small_conv is None else y + self.small_conv(x)
        tall, tall_bias, wide, wide_bias = self.folded()
        if (self.kernel_size >= _LONG and token_chunks_pay(x) and x.dtype == torch.float32
                and not torch.is_autocast_enabled('cpu')):
            return _tall_and_wide(x, tall, wide, tall_bias + wide_bias)
        long, short = self.kernel_size // 2, self.small_kernel // 2
        y = F.conv2d(x, tall, tall_bias + wide_bias, padding=(long, short), groups=self.channels)
        return y + F.conv2d(x, wide, padding=(short, long), groups=self.channels)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
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
            ValueError: If a normalisation is not a BatchNorm with running statistics.
        """
        if self.deployed:
            return
        for branch in self._branches():
            if getattr(branch.bn, 'running_mean', None) is None:
                raise ValueError('only BatchNorm with running statistics can be folded into a convolution, '
                                 f'got {type(branch.bn).__name__}')
        folded = self.folded()
        for name, weight, bias in (('vertical', *folded[:2]), ('horizontal', *folded[2:])):
            old = getattr(self, name).conv
            conv = nn.Conv2d(self.channels, self.channels, old.kernel_size, padding=old.padding, groups=self.channels,
                             device=weight.device, dtype=weight.dtype).requires_grad_(old.weight.requires_grad)
            conv.weight.copy_(weight)
            conv.bias.copy_(bias)
            conv.train(self.training)
            setattr(self, name, conv)
        self.small_conv = None
