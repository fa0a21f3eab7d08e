"""ParC as layers."""
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache
from plugconv_mm.ops.parc.functional import apply, check, choose_plan, prepare
from plugconv_mm.ops.parc.plan import check_backend


class ParC2d(nn.Module):
    """Position-aware circular convolution as a layer; see :func:`parc_conv2d`.

    In evaluation mode the stretched kernel, its transform or its circulant is computed once per map size, and again
    when the weights change.

    Args:
        channels: Channels in and out.
        direction: ``'H'`` or ``'W'``, the axis that the kernel runs along.
        meta_size: K, the length of kernel and embedding, at least 2: the map's side at the training resolution.
        groups: Channel groups; ``None`` means `channels`, a depthwise convolution.
        bias: Whether there is a bias.
        position_embedding: Whether there is a position embedding.
        backend: As in :func:`parc_conv2d`; may be set anew at any time.

    Shape: (B, channels, H, W) to the same.

    Cost: B·C·(C/groups)·H·W·N multiply-adds for ``spatial`` and ``gemm`` with N the side along `direction`;
    O(B·C·H·W·log N) for ``fft``, and C/groups complex multiply-adds for each of the frequencies.

    Example:
        >>> layer = ParC2d(16, 'W', meta_size=14)
        >>> layer(torch.randn(1, 16, 10, 18)).shape
        torch.Size([1, 16, 10, 18])
        >>> layer.weight.shape, layer.position_embedding.shape
        (torch.Size([16, 1, 1, 14]), torch.Size([1, 16, 1, 14]))
    """

    def __init__(self, channels: int, direction: str, meta_size: int = 14, groups: int | None = None, bias: bool = True,
                 position_embedding: bool = True, backend: str = 'auto') -> None:
        super().__init__()
        groups = channels if groups is None else groups
        if direction not in ('H', 'W'):
            raise ValueError(f"direction must be 'H' or 'W', got {direction!r}")
        if channels < 1 or groups < 1 or channels % groups:
            raise ValueError(f'groups must divide channels, got channels={channels}, groups={groups}')
        if meta_size < 2:
            raise ValueError(f'meta_size must be at least 2, got {meta_size}')
        check_backend(backend)
        self.channels, self.direction, self.meta_size = channels, direction, meta_size
        self.groups, self.backend = groups, backend
        side = (meta_size, 1) if direction == 'H' else (1, meta_size)
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, *side))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.position_embedding = nn.Parameter(torch.empty(1, channels, *side)) if position_embedding else None
        self._cache = KernelCache()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as ``nn.Conv2d`` does and the embedding from a normal of deviation 0.02."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        if self.position_embedding is not None:
            nn.init.trunc_normal_(self.position_embedding, std=0.02)

    def train(self, mode: bool = True) -> 'ParC2d':
        """Set training or evaluation mode; weights may have been swapped since the last call, so kept kernels go."""
        self._cache.forget()
        return super().train(mode)

    def select_backend(self, x: Tensor) -> str:
        """The backend that a call with `x` would use."""
        parameters = (self.weight, self.bias, self.position_embedding)
        return choose_plan(x, parameters, 2 if self.direction == 'H' else 3, self.backend,
                           self._cache.serves(self)).backend

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` of shape (B, channels, H, W)."""
        parameters = (self.weight, self.bias, self.position_embedding)
        axis = check(x, *parameters)
        is_cached = self._cache.serves(self)
        plan = choose_plan(x, parameters, axis, self.backend, is_cached)
        if is_cached:
            key = (plan.backend, plan.geometry.length, plan.compute_dtype)
            kernel, offset = self._cache.get(parameters, key, lambda: prepare(plan, *parameters))
        else:
            kernel, offset = prepare(plan, *parameters)
        return apply(plan, x, kernel, offset)

    def extra_repr(self) -> str:
        return (f'{self.channels}, direction={self.direction!r}, meta_size={self.meta_size}, groups={self.groups}, '
                f'bias={self.bias is not None}, position_embedding={self.position_embedding is not None}, '
                f'backend={self.backend!r}')


class ParCHW2d(nn.Module):
    """ParC along H on the first half of the channels, along W on the second, concatenated.

    It takes the place of a block's k×k convolution: every output position of the two halves together depends on a
    whole column and a whole row.

    Args:
        channels: Channels in and out; even.
        meta_size: Length of the kernels and embeddings.
        depthwise: Whether each half is convolved depthwise (the default) or densely.
        position_embedding: Whether the halves have position embeddings.
        backend: As in :func:`parc_conv2d`.
        bias: Whether the halves have a bias.

    Raises:
        ValueError: If `channels` is odd.

    Example:
        >>> ParCHW2d(8, meta_size=7)(torch.randn(1, 8, 9, 5)).shape
        torch.Size([1, 8, 9, 5])
    """

    def __init__(self, channels: int, meta_size: int = 14, depthwise: bool = True, position_embedding: bool = True,
                 backend: str = 'auto', bias: bool = True) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f'ParC-H and ParC-W share the channels half and half: got {channels}, which two does not '
                             'divide. Choose an even width.')
        self.channels = channels
        half = channels // 2
        groups = half if depthwise else 1
        self.parc_h = ParC2d(half, 'H', meta_size, groups, bias, position_embedding, backend)
        self.parc_w = ParC2d(half, 'W', meta_size, groups, bias, position_embedding, backend)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` of shape (B, channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected a map of shape (B, {self.channels}, H, W), got {tuple(x.shape)}')
        first, second = x.chunk(2, dim=1)
        return torch.cat((self.parc_h(first), self.parc_w(second)), dim=1)


class ParCMixer(nn.Module):
    """ParC along H and then W on the first half of the channels, along W and then H on the second, depthwise.

    The token mixer of ParC-Net's MetaFormer blocks, without the norm in it: every output position depends on the whole
    map. Paper: https://arxiv.org/abs/2203.03952.

    Args:
        channels: Channels in and out; even.
        meta_size: Length of the kernels and embeddings.
        position_embedding: Whether the four convolutions have position embeddings.
        backend: As in :func:`parc_conv2d`.
        bias: Whether the four convolutions have a bias.

    Shape: (B, channels, H, W) to the same.

    Raises:
        ValueError: If `channels` is odd; in forward, for another number of channels or dimensions.

    Example:
        >>> ParCMixer(8, meta_size=7)(torch.randn(1, 8, 9, 5)).shape
        torch.Size([1, 8, 9, 5])
    """

    def __init__(self, channels: int, meta_size: int, position_embedding: bool = True, backend: str = 'auto',
                 bias: bool = True) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f'the two orders of ParC-H and ParC-W share the channels half and half: got {channels}, '
                             'which two does not divide. Choose an even width.')
        self.channels = channels
        half = channels // 2

        def branch(first: str, second: str) -> nn.Sequential:
            return nn.Sequential(OrderedDict(
                (name, ParC2d(half, direction, meta_size, half, bias, position_embedding, backend))
                for name, direction in (('first', first), ('second', second))))

        self.branch_hw = branch('H', 'W')
        self.branch_wh = branch('W', 'H')

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` of shape (B, channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected a map of shape (B, {self.channels}, H, W), got {tuple(x.shape)}')
        first, second = x.chunk(2, dim=1)
        return torch.cat((self.branch_hw(first), self.branch_wh(second)), dim=1)
