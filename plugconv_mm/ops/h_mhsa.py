"""Hierarchical multi-head self-attention (H-MHSA).

Liu et al., "Transformer in Convolutional Neural Networks" / "Vision Transformers with Hierarchical Attention",
https://arxiv.org/abs/2106.03180.
"""
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.batch_norm import fold_batch_norm, folds
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.tracing import side


class HMHSA(nn.Module):
    r"""Self-attention in two steps: inside small windows, then from every position to a pooled map.

    With :math:`x` of shape (N, C, H, W) and d = ``head_width``::

        w = attention of BN(x) inside each G x G window        G = grid_size
        g = BN(w + x)
        o = attention of queries from g over keys and values from BN(avgpool_r(g))        r = pool_ratio
        y = 1x1(o + g)

    With ``grid_size=1`` there is one step, plain attention over all positions, followed by the 1x1.

    Sides that G or r do not divide are legal. Windows that reach over the border hold fewer keys (the positions
    outside the map are masked), and a pooled cell that reaches over the border is the mean of its positions inside
    the map; so nothing depends on what is outside.

    Cost: O(HW (G² + HW / r²) C) for the two attentions and O(HW C²) for the projections, against O((HW)² C) for plain
    attention.

    Args:
        channels: C, a multiple of ``head_width``.
        grid_size: Side G of a window, in positions. 1 stands for plain attention over the whole map.
        pool_ratio: Side r of a cell of the pooled map, in positions. Only 1 goes with ``grid_size=1``.
        head_width: Channels of one attention head.
        norm_layer: Makes the normalisation for a number of channels.

    Shapes:
        input (N, C, H, W) -> output (N, C, H, W), any H and W of at least 1.

    Raises:
        ValueError: ``channels`` is no multiple of ``head_width``, a size is below 1, a ``pool_ratio`` above 1 stands
            beside ``grid_size=1``, or the input is not (N, ``channels``, H, W).

    Example:
        >>> import torch
        >>> from plugconv_mm.ops import HMHSA
        >>> attention = HMHSA(128, grid_size=8, pool_ratio=4)
        >>> attention(torch.rand(2, 128, 30, 41)).shape
        torch.Size([2, 128, 30, 41])
    """

    def __init__(self,
                 channels: int,
                 grid_size: int = 8,
                 pool_ratio: int = 1,
                 head_width: int = 64,
                 norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        for name, value in (('channels', channels), ('grid_size', grid_size), ('pool_ratio', pool_ratio),
                            ('head_width', head_width)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        if channels % head_width:
            raise ValueError(f'channels ({channels}) must be a multiple of head_width ({head_width})')
        if grid_size == 1 and pool_ratio > 1:
            raise ValueError(f'grid_size=1 is plain attention over all positions and pools nothing: got pool_ratio='
                             f'{pool_ratio}; give 1, or a grid_size above 1')
        self.channels = channels
        self.grid_size = grid_size
        self.pool_ratio = pool_ratio
        self.head_width = head_width
        # The norms first: mmcv's fuse_conv_bn folds a batch norm into the convolution that was made before it.
        self.norm = norm_layer(channels)
        if grid_size > 1:
            self.grid_norm = norm_layer(channels)
            self.ds_norm = norm_layer(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        if grid_size > 1:
            self.q = nn.Conv2d(channels, channels, 1)
            self.kv = nn.Conv2d(channels, 2 * channels, 1)

    def extra_repr(self) -> str:
        return (f'channels={self.channels}, grid_size={self.grid_size}, pool_ratio={self.pool_ratio}, '
                f'head_width={self.head_width}')

    def forward(self, x: Tensor) -> Tensor:
        """Attend over x (N, channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected an input of shape (N, {self.channels}, H, W), got {tuple(x.shape)}')
        height, width = side(x, 2), side(x, 3)
        tokens, *linear = _after_norm(self.norm, self.qkv, x)
        if self.grid_size == 1:
            q, k, v = self._project(tokens, *linear, parts=3)
            return self.proj(_to_map(_attend(q, k, v), height, width))

        windows, mask = _to_windows(tokens, self.grid_size)
        q, k, v = self._project(windows, *linear, parts=3)
        local = _from_windows(_attend(q, k, v, mask), x.shape[0], height, width, self.grid_size)
        local = self.grid_norm(x + local)

        pooled = local
        if self.pool_ratio > 1:
            # A cell over the border averages the positions it really has.
            pooled = F.avg_pool2d(local, self.pool_ratio, ceil_mode=True, count_include_pad=False)
        q, = self._project(*_after_norm(None, self.q, local), parts=1)
        k, v = self._project(*_after_norm(self.ds_norm, self.kv, pooled), parts=2)
        return self.proj(_to_map(_attend(q, k, v), height, width) + local)

    def _project(self, tokens: Tensor, weight: Tensor | None, bias: Tensor | None,
                 parts: int) -> tuple[Tensor, ...]:
        """Apply a linear layer to tokens (B, ..., C), as `parts` tensors (B, heads, L, head_width).

        Without a weight, the tokens (B, ..., parts · C) come from the layer already.
        """
        y = tokens if weight is None else F.linear(tokens, weight, bias)
        y = y.reshape(y.shape[0], math.prod(y.shape[1:-1]), parts, self.channels // self.head_width, self.head_width)
        return y.permute(2, 0, 3, 1, 4).unbind(0)


def _after_norm(norm: nn.Module | None, conv: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Tokens, weight and bias whose linear layer is ``conv(norm(x))``, with a 1x1 `conv`.

    A `norm` that is a fixed affine map per channel goes into the weights, which saves a pass over the map. A `conv`
    that is not plain is called; then the tokens are its output, and there is no weight.
    """
    if not is_plain(conv, nn.Conv2d):
        return _to_tokens(conv(x if norm is None else _normed(norm, x))), None, None
    weight, bias = conv.weight.flatten(1), conv.bias
    if norm is None:
        return _to_tokens(x), weight, bias
    if not folds(norm):
        return _to_tokens(_normed(norm, x)), weight, bias
    scale, shift = fold_batch_norm(norm)
    of_shift = weight @ shift
    return _to_tokens(x), weight * scale, of_shift if bias is None else bias + of_shift


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    # On a CPU, the backward pass of torch's group norm crashes if a channels-last map needs no gradient, as behind
    # frozen layers.
    if isinstance(norm, nn.GroupNorm) and torch.is_grad_enabled() and not x.requires_grad:
        x = x.contiguous()
    return norm(x)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of (B, heads, L, d) tensors as (B, L, heads * d)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def _to_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C); no copy where ``x`` is channels-last in memory."""
    return x.permute(0, 2, 3, 1)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(N, H * W, C) as (N, C, H, W), channels-last in memory."""
    return tokens.view(tokens.shape[0], height, width, tokens.shape[2]).permute(0, 3, 1, 2)


def _to_windows(x: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Cut (N, H, W, C) into windows (N * rows * columns, size², C), padding right and below.

    The mask is None where nothing was padded, else a boolean (N * rows * columns, 1, 1, size²), true for the positions
    inside the map. No window is all padding.
    """
    n, height, width, c = x.shape[0], side(x, 1), side(x, 2), x.shape[3]
    pad_h, pad_w = -height % size, -width % size
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (height + pad_h) // size, (width + pad_w) // size
    windows = x.reshape(n, rows, size, columns, size, c).transpose(2, 3).reshape(-1, size * size, c)
    if not (pad_h or pad_w):
        return windows, None
    row_inside = torch.arange(rows * size, device=x.device).view(rows, 1, size, 1) < height
    column_inside = torch.arange(columns * size, device=x.device).view(1, columns, 1, size) < width
    mask = (row_inside & column_inside).view(1, -1, 1, 1, size * size)
    return windows, mask.expand(n, -1, -1, -1, -1).flatten(0, 1)


def _from_windows(windows: Tensor, n: int, height: int, width: int, size: int) -> Tensor:
    """Join windows (N * rows * columns, size², C) to a map (N, C, height, width), dropping the padding."""
    rows, columns = -(-height // size), -(-width // size)
    channels = windows.shape[2]
    x = windows.view(n, rows, columns, size, size, channels).transpose(2, 3)
    x = x.reshape(n, rows * size, columns * size, channels)
    return x[:, :height, :width].permute(0, 3, 1, 2)
