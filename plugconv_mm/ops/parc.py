"""ParC: position-aware circular convolution, and Fast-ParC.

- ParC-Net: Position Aware Circular Convolution with Merits from ConvNets and Transformer (ECCV 2022),
  https://arxiv.org/abs/2203.03952
- Fast-ParC: Capturing Position Aware Global Feature for ConvNets and ViTs, https://arxiv.org/abs/2210.04020

A kernel as long as the map, wrapped around, along one axis; a learned position embedding tells it where it is::

    y[n, c, i, j] = b[c] + sum_k sum_c' w[c, c', k] (x + pe)[n, c', (i + k) mod H, j]        (along H)

Three forms of the same product are here: ``spatial`` (a convolution of the map laid twice), ``fft`` (Fast-ParC) and
``gemm`` (a product with the circulant matrix). They agree up to rounding and differ in cost; ``auto`` picks.
"""
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.ops.mechanisms.autocast import autocast_dtype
from plugconv_mm.ops.mechanisms.dft import irdft_matrix, rdft_matrix
from plugconv_mm.ops.mechanisms.kernel_cache import KernelCache
from plugconv_mm.ops.mechanisms.tracing import is_exporting, is_tracing
from plugconv_mm.ops.parc_cost import BACKENDS, Workload, cheapest_backend

_HALF = (torch.float16, torch.bfloat16)
_CHUNK_BYTES = 4 * 2**20


def parc_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, position_embedding: Tensor | None = None,
                backend: str = 'auto') -> Tensor:
    """Position-aware circular convolution of `x` with a global one-dimensional kernel.

    The shape of `weight` tells the axis and the groups. Kernel and embedding are stretched to the map's length N
    along that axis (bilinear, ``align_corners=True``).

    Args:
        x: (B, C, H, W), floating point.
        weight: (C, C / groups, K, 1) for a convolution along H, (C, C / groups, 1, K) along W, K >= 2; groups = C is
            depthwise, groups = 1 dense.
        bias: (C,) or None.
        position_embedding: (1, C, K, 1) or (1, C, 1, K), as `weight` lies, or None.
        backend: ``'spatial'``, O(N²) a line; ``'fft'``, O(N log N), in float32 or float64 whatever the input;
            ``'gemm'``, O(N²) on matrix units; ``'auto'``, the one expected to be the fastest.

    Returns:
        (B, C, H, W), in the memory format of `x`; under autocast in autocast's type, otherwise in that of `x`.

    Raises:
        TypeError: Not tensors, an integer or complex input, or data types that differ outside autocast.
        ValueError: Shapes or devices that do not fit, an unknown backend.

    Example:
        >>> x = torch.randn(2, 6, 20, 30)
        >>> weight, pe = torch.randn(6, 1, 14, 1), torch.randn(1, 6, 14, 1)      # depthwise, along H
        >>> y = parc_conv2d(x, weight, position_embedding=pe)
        >>> y.shape
        torch.Size([2, 6, 20, 30])
        >>> torch.allclose(y, parc_conv2d(x, weight, position_embedding=pe, backend='fft'), atol=1e-4)
        True
    """
    axis = _check(x, weight, bias, position_embedding)
    plan = _Plan(x, weight, axis, backend)
    kernel, offset = _prepare(plan, weight, bias, position_embedding)
    return _apply(plan, x, kernel, offset)


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

    def __init__(self, channels: int, direction: str, meta_size: int, groups: int | None = None, bias: bool = True,
                 position_embedding: bool = True, backend: str = 'auto') -> None:
        super().__init__()
        groups = channels if groups is None else groups
        if direction not in ('H', 'W'):
            raise ValueError(f"direction must be 'H' or 'W', got {direction!r}")
        if channels < 1 or groups < 1 or channels % groups:
            raise ValueError(f'groups must divide channels, got channels={channels}, groups={groups}')
        if meta_size < 2:
            raise ValueError(f'meta_size must be at least 2, got {meta_size}')
        _check_backend(backend)
        self.channels, self.direction, self.meta_size = channels, direction, meta_size
        self.groups, self.backend = groups, backend
        side = (meta_size, 1) if direction == 'H' else (1, meta_size)
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, *side))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.position_embedding = nn.Parameter(torch.empty(1, channels, *side)) if position_embedding else None
        self._cache = KernelCache()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias as ``nn.Conv2d`` does and the embedding from a normal of deviation 0.02."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        if self.position_embedding is not None:
            nn.init.trunc_normal_(self.position_embedding, std=0.02)

    def select_backend(self, x: Tensor) -> str:
        """The backend that a call with `x` would use."""
        return _Plan(x, self.weight, 2 if self.direction == 'H' else 3, self.backend).backend

    def forward(self, x: Tensor) -> Tensor:
        """Convolves `x` of shape (B, channels, H, W)."""
        parameters = (self.weight, self.bias, self.position_embedding)
        axis = _check(x, *parameters)
        plan = _Plan(x, self.weight, axis, self.backend)
        if KernelCache.serves(self):
            key = (plan.backend, plan.length, plan.compute_dtype)
            kernel, offset = self._cache.get(parameters, key, lambda: _prepare(plan, *parameters))
        else:
            kernel, offset = _prepare(plan, *parameters)
        return _apply(plan, x, kernel, offset)

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

    def __init__(self, channels: int, meta_size: int, depthwise: bool = True, position_embedding: bool = True,
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
        """Convolves `x` of shape (B, channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected a map of shape (B, {self.channels}, H, W), got {tuple(x.shape)}')
        first, second = x.chunk(2, dim=1)
        return torch.cat((self.parc_h(first), self.parc_w(second)), dim=1)


class _Plan:
    """How one call is carried out: axis, sizes, data types and backend."""

    def __init__(self, x: Tensor, weight: Tensor, axis: int, backend: str) -> None:
        self.axis, self.length, self.other = axis, x.shape[axis], x.shape[5 - axis]
        self.channels_last = x.shape[1] > 1 and not x.is_contiguous() and x.is_contiguous(
            memory_format=torch.channels_last)
        self.group_width = weight.shape[1]
        self.groups = x.shape[1] // self.group_width
        self.out_dtype = x.dtype
        autocast = autocast_dtype(x)
        if x.dtype != torch.float64 and autocast is not None:
            self.out_dtype = autocast
        elif weight.dtype != x.dtype:
            raise TypeError(f'the input is {x.dtype} and the weight {weight.dtype}: convert one of them, or run under '
                            'torch.autocast')
        _check_backend(backend)
        if is_exporting() and backend in ('auto', 'fft'):
            # No complex numbers there: a circulant for each channel, or, where channels mix, the transform as a matrix.
            self.backend = 'gemm' if self.group_width == 1 else 'dft'
        elif x.shape[0] == 0:  # other backends cannot tell the shapes of an empty batch, and FFTs refuse it
            self.backend = 'spatial'
        else:
            self.backend = backend if backend != 'auto' else cheapest_backend(self._workload(x, weight))
        # There is no bfloat16 FFT, and float16 only for powers of two on CUDA: both go through float32.
        half_fft = self.backend == 'fft' and self.out_dtype in _HALF
        self.compute_dtype = torch.float32 if half_fft else self.out_dtype

    def _workload(self, x: Tensor, weight: Tensor) -> Workload:
        return Workload(
            batch=x.shape[0], channels=x.shape[1], groups=self.groups, length=self.length, other=self.other,
            along_h=self.axis == 2, channels_last=self.channels_last, device=x.device.type, dtype=self.out_dtype,
            training=torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))


def _check_backend(backend: str) -> None:
    if backend not in (*BACKENDS, 'auto'):
        raise ValueError(f"unknown backend {backend!r}, expected one of {', '.join(map(repr, (*BACKENDS, 'auto')))}")


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, position_embedding: Tensor | None) -> int:
    """The dimension that the kernel runs along; raises where the arguments do not fit together."""
    named = {'x': x, 'weight': weight, 'bias': bias, 'position_embedding': position_embedding}
    for name, t in named.items():
        if t is None and name in ('bias', 'position_embedding'):
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f'{name} must be a tensor, got {type(t).__name__}')
        if not t.is_floating_point():
            raise TypeError(f'{name} must be of a floating-point type, got {t.dtype}; convert it, for example with '
                            '.float()')
        if t.device != x.device:
            raise ValueError(f'{name} is on {t.device} and x on {x.device}: move both to one device')
        if name != 'x' and t.dtype != weight.dtype:
            raise TypeError(f'{name} is {t.dtype} and weight {weight.dtype}: they must be of one type')
    if x.dim() != 4 or 0 in x.shape[1:]:
        raise ValueError(f'x must be a non-empty map of shape (B, C, H, W), got {tuple(x.shape)}')
    channels = x.shape[1]
    if weight.dim() != 4 or 1 not in weight.shape[2:] or max(weight.shape[2:]) < 2:
        raise ValueError('weight must have the shape (C, C / groups, K, 1) for a convolution along H or '
                         f'(C, C / groups, 1, K) along W, with K of at least 2; got {tuple(weight.shape)}')
    if weight.shape[0] != channels or channels % weight.shape[1]:
        raise ValueError(f'x has {channels} channels, so weight must have the shape ({channels}, {channels} / groups, '
                         f'...) with groups a divisor of {channels}; got {tuple(weight.shape)}')
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f'bias must have the shape ({channels},), got {tuple(bias.shape)}')
    axis = 3 if weight.shape[2] == 1 else 2
    if position_embedding is not None:
        expected = (1, channels, *weight.shape[2:])
        if position_embedding.shape != expected:
            raise ValueError(f'position_embedding must have the shape {expected}, got '
                             f'{tuple(position_embedding.shape)}')
    return axis


def _stretch(t: Tensor, plan: _Plan) -> Tensor:
    """(A, B, K, 1) or (A, B, 1, K) to the map's length, in float32 at least, as (A, B, N)."""
    t = t.float() if t.dtype in _HALF else t
    size = (plan.length, 1) if plan.axis == 2 else (1, plan.length)
    if t.shape[2:] != size:
        t = F.interpolate(t, size=size, mode='bilinear', align_corners=True)
    return t.flatten(2)


def _prepare(plan: _Plan, weight: Tensor, bias: Tensor | None,
             position_embedding: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What depends on the parameters and the map's size alone.

    Returns the kernel in the backend's own form, and what bias and embedding add to each output position, shaped to
    broadcast, or None. The operator is linear, so the embedding's share is the convolution of the embedding itself,
    and the map need not be read once more to add it.
    """
    kernel = _as_kernel(_stretch(weight, plan), plan)
    offset = None
    if position_embedding is not None:
        pe = _stretch(position_embedding, plan).unsqueeze(2 if plan.axis == 3 else 3)
        offset = _correlate(plan, pe.to(plan.compute_dtype), kernel)
    if bias is not None:
        b = bias.view(1, -1, 1, 1)
        offset = b if offset is None else offset + b
    return kernel, None if offset is None else offset.to(plan.out_dtype)


def _as_kernel(stretched: Tensor, plan: _Plan) -> Tensor:
    """The stretched kernel (C, C / groups, N) in the form that the plan's backend multiplies with."""
    n, groups, width = plan.length, plan.groups, plan.group_width
    if plan.backend == 'spatial':
        return stretched.unsqueeze(3 if plan.axis == 2 else 2).to(plan.compute_dtype)
    if plan.backend == 'gemm':
        # Row i of a circulant is the kernel shifted i places: the windows of (w[1:], w), in reverse.
        circulant = torch.cat((stretched[..., 1:], stretched), dim=-1).unfold(-1, n, 1).flip(-2)
        circulant = circulant.unflatten(0, (groups, -1)).transpose(2, 3)
        return circulant.reshape(groups, width * n, width * n).to(plan.compute_dtype)
    if plan.backend == 'dft':
        # For each frequency and group, the matrix of a complex product on real parts above imaginary ones.
        spectrum = stretched.to(plan.compute_dtype) @ rdft_matrix(n, stretched)
        real, imag = (spectrum * math.sqrt(n)).view(groups, width, width, 2, -1).permute(3, 4, 0, 1, 2)
        return torch.cat((torch.cat((real, imag), dim=3), torch.cat((-imag, real), dim=3)), dim=2)
    spectrum = torch.fft.rfft(stretched.to(plan.compute_dtype)).conj()
    if width == 1:
        return spectrum.resolve_conj()
    return spectrum.permute(2, 0, 1).reshape(-1, width, width).resolve_conj()


def _apply(plan: _Plan, x: Tensor, kernel: Tensor, offset: Tensor | None) -> Tensor:
    memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
    plain = torch.is_grad_enabled() or is_tracing()
    if (plan.backend == 'fft' and plan.group_width == 1 and not plan.channels_last and not plain
            and x.device.type == 'cpu' and x.numel() * x.element_size() > 3 * _CHUNK_BYTES):
        return _apply_in_chunks(plan, x, kernel, offset)
    y = _correlate(plan, x.to(plan.compute_dtype), kernel).to(plan.out_dtype)
    if offset is None:
        return y.contiguous(memory_format=memory_format)
    if plain or y.is_contiguous(memory_format=memory_format):
        return y.add_(offset).contiguous(memory_format=memory_format)
    # One pass that adds and puts the axes back in order.
    return torch.add(y, offset, out=torch.empty(y.shape, dtype=y.dtype, device=y.device, memory_format=memory_format))


def _apply_in_chunks(plan: _Plan, x: Tensor, kernel: Tensor, offset: Tensor | None) -> Tensor:
    """The depthwise transform of a big map, a few channels at a time: spectra stay in the processor's cache, and the
    operating system is not asked for fresh pages for each of them."""
    step = max(1, _CHUNK_BYTES // (x[:, 0].numel() * x.element_size()))
    out = torch.empty(x.shape, dtype=plan.out_dtype, device=x.device)
    for start in range(0, x.shape[1], step):
        part = slice(start, start + step)
        y = _correlate(plan, x[:, part].to(plan.compute_dtype), kernel[part])
        if offset is None:
            out[:, part] = y
        else:
            torch.add(y, offset[:, part], out=out[:, part])
    return out


def _correlate(plan: _Plan, x: Tensor, kernel: Tensor) -> Tensor:
    """The circular correlation of `x` (B, C, N, L) or (B, C, L, N) with a kernel in the backend's form."""
    if plan.backend == 'fft':
        # The transform wants its axis last and contiguous, and copies where it is not.
        lines = x.mT if plan.axis == 2 else x
        if torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad):
            lines = _FastParC.apply(lines, kernel, plan)
        else:
            lines = torch.fft.irfft(_mix(torch.fft.rfft(lines), kernel, plan, in_place=True), n=plan.length)
        return lines.mT if plan.axis == 2 else lines
    if plan.backend == 'spatial':
        doubled = torch.cat((x, x.narrow(plan.axis, 0, plan.length - 1)), dim=plan.axis)
        return F.conv2d(doubled, kernel, groups=plan.groups)
    if plan.backend == 'dft':
        lines = x.mT if plan.axis == 2 else x
        spectrum = lines @ rdft_matrix(plan.length, x)
        spectrum = spectrum.view(-1, plan.groups, plan.group_width, lines.shape[2], 2, kernel.shape[0])
        mixed = kernel @ spectrum.permute(0, 5, 1, 4, 2, 3).flatten(3, 4)
        mixed = mixed.unflatten(3, (2, plan.group_width)).permute(0, 2, 4, 5, 3, 1).flatten(4).flatten(1, 2)
        lines = mixed @ irdft_matrix(plan.length, x)
        return lines.mT if plan.axis == 2 else lines
    batch, channels, height, width = x.shape
    if plan.axis == 2:
        columns = x.reshape(batch, plan.groups, -1, width)
        return torch.matmul(kernel, columns).view(x.shape)
    if plan.group_width == 1:
        return torch.matmul(x, kernel.transpose(1, 2))
    rows = x.view(batch, plan.groups, -1, height, width).transpose(2, 3).reshape(batch, plan.groups, height, -1)
    rows = torch.matmul(rows, kernel.transpose(1, 2))
    return rows.view(batch, plan.groups, height, -1, width).transpose(2, 3).reshape(x.shape)


def _mix(spectrum: Tensor, kernel: Tensor, plan: _Plan, in_place: bool = False) -> Tensor:
    """Multiplies each frequency of (B, C, L, F) with the kernel's: (C, 1, F), or (F · groups, ...)."""
    if plan.group_width == 1:
        return spectrum.mul_(kernel) if in_place else spectrum * kernel
    mixed = torch.bmm(kernel, _by_frequency(spectrum, plan))
    mixed = mixed.view(-1, plan.groups, plan.group_width, spectrum.shape[0], spectrum.shape[2])
    return mixed.permute(3, 1, 2, 4, 0).flatten(1, 2)


def _by_frequency(spectrum: Tensor, plan: _Plan) -> Tensor:
    """(B, C, L, F) as a batch of matrices (F · groups, C / groups, B · L)."""
    t = spectrum.unflatten(1, (plan.groups, plan.group_width)).permute(4, 1, 2, 0, 3)
    return t.reshape(-1, plan.group_width, spectrum.shape[0] * spectrum.shape[2])


class _FastParC(torch.autograd.Function):
    """irfft(kernel · rfft(lines)) with its gradients kept in the half spectrum.

    Autograd's own backward of rfft and irfft goes through full-length complex transforms.
    """

    @staticmethod
    def forward(ctx, lines: Tensor, kernel: Tensor, plan: _Plan) -> Tensor:
        spectrum = torch.fft.rfft(lines)
        ctx.plan = plan
        ctx.save_for_backward(kernel, spectrum if ctx.needs_input_grad[1] else None)
        return torch.fft.irfft(_mix(spectrum, kernel, plan, in_place=not ctx.needs_input_grad[1]), n=plan.length)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        plan, (kernel, spectrum) = ctx.plan, ctx.saved_tensors
        depthwise = plan.group_width == 1
        grad = torch.fft.rfft(grad)
        grad_lines = grad_kernel = None
        if ctx.needs_input_grad[1]:
            # Each frequency but the first, and the last of an even length, stands for two.
            scale = grad.new_full(grad.shape[-1:], 2 / plan.length, dtype=grad.real.dtype)
            scale[0] = 1 / plan.length
            if plan.length % 2 == 0:
                scale[-1] = 1 / plan.length
            if depthwise:
                grad_kernel = torch.linalg.vecdot(spectrum, grad, dim=2).sum(0).unsqueeze(1) * scale
            else:
                grad_kernel = torch.bmm(_by_frequency(grad, plan), _by_frequency(spectrum, plan).mH)
                grad_kernel *= scale.repeat_interleave(plan.groups).view(-1, 1, 1)
        if ctx.needs_input_grad[0]:
            adjoint = kernel.conj() if depthwise else kernel.mH
            grad_lines = torch.fft.irfft(_mix(grad, adjoint, plan, in_place=True), n=plan.length)
        return grad_lines, grad_kernel, None
