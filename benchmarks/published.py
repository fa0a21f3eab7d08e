"""The operators and blocks in the papers' own formulation, as a reference.

All maps are channels-first; LayerNorm of maps and attention are composed of elementary operators; normalisations are
not folded into convolutions; ParC is a concatenation and a convolution; the dynamic convolutions of KernelWarehouse mix
a kernel for each sample and run as one grouped convolution.
"""
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm import ops
from plugconv_mm.ops.kernel_warehouse import KWAttention


class _Swapped(nn.Module):
    """A module with the parameters and the results of ``ours``, in another formulation."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.ours = ours


def layer_norm_of_map(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise the channels of a map (N, C, H, W)."""
    centred = x - x.mean(1, keepdim=True)
    x = centred / (centred.pow(2).mean(1, keepdim=True) + norm.eps).sqrt()
    return norm.weight[:, None, None] * x + norm.bias[:, None, None]


class Norm(_Swapped):
    """A BatchNorm that is not folded into a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self.ours(x)


class MapLayerNorm(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm_of_map(self.ours, x)


class ConvNeXtBlock(_Swapped):
    """The block of ConvNeXt, SLaK and HorNet."""

    def forward(self, x: Tensor) -> Tensor:
        m = self.ours
        if hasattr(m, 'gnconv'):
            x = x + m.gamma1.view(-1, 1, 1) * m.gnconv(m.norm1(x))
            y, norm, gamma = x, m.norm2, m.gamma2
        else:
            y, norm, gamma = m.dwconv(x) if hasattr(m, 'dwconv') else m.large_kernel(x), m.norm, m.gamma
        norm = getattr(norm, 'ours', norm)
        y = F.layer_norm(y.permute(0, 2, 3, 1), (y.shape[1], ), norm.weight, norm.bias, norm.eps)
        y = gamma.flatten() * m.pwconv2(F.gelu(m.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Filter(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        m = self.ours
        x = layer_norm_of_map(m.pre_norm, x)
        local, wide = x.chunk(2, dim=1)
        local = m.dw(local)
        spectrum = torch.fft.rfft2(wide.float(), norm='ortho')
        weight = F.interpolate(m.complex_weight.permute(3, 0, 1, 2), size=spectrum.shape[2:], mode='bilinear',
                               align_corners=True).permute(1, 2, 3, 0)
        spectrum = spectrum * torch.view_as_complex(weight.contiguous())
        wide = torch.fft.irfft2(spectrum, s=x.shape[2:], norm='ortho')
        x = torch.cat((local.unsqueeze(2), wide.unsqueeze(2)), dim=2).reshape(x.shape)
        return layer_norm_of_map(m.post_norm, x)


class GnConv(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        m = self.ours
        p, q = torch.split(m.proj_in(x), (m.widths[0], sum(m.widths)), dim=1)
        gates = torch.split(m.dwconv(q) * m.scale, m.widths, dim=1)
        x = p * gates[0]
        for pw, gate in zip(m.pws, gates[1:], strict=True):
            x = pw(x) * gate
        return m.proj_out(x)


class LargeKernel(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        return self.ours.vertical(x) + self.ours.horizontal(x) + self.ours.small_conv(x)


class ParC(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        m, axis = self.ours, 2 if self.ours.direction == 'H' else 3
        length = x.shape[axis]
        if m.position_embedding is not None:
            x = x + self.stretch(m.position_embedding, length, axis).expand(1, -1, *x.shape[2:])
        doubled = torch.cat((x, x.narrow(axis, 0, length - 1)), dim=axis)
        return F.conv2d(doubled, self.stretch(m.weight, length, axis), m.bias, groups=m.groups)

    @staticmethod
    def stretch(t: Tensor, length: int, axis: int) -> Tensor:
        return F.interpolate(t, size=(length, 1) if axis == 2 else (1, length), mode='bilinear', align_corners=True)


class ParCBoth(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.chunk(x, 2, dim=1)
        return torch.cat((self.ours.parc_h(first), self.ours.parc_w(second)), dim=1)


class Attention(_Swapped):
    """The attention of a layer over the cells of its warehouse."""

    def forward(self, pooled: Tensor, temperature: float) -> Tensor:
        m = self.ours
        z = m.fc2(F.relu(m.norm1(m.fc1(pooled)))).reshape(len(pooled), m.num_mixtures, -1)
        if m.fc3 is not None:
            own, others, dropped = torch.split(z, (m.num_own, m.fc3.in_features, 1), dim=2)
            others = m.fc3(others)
            z = torch.cat((others[:, :, :m.own_start], own, others[:, :, m.own_start:], dropped), dim=2)
            z = z + m.basis_bias.view(m.num_mixtures, -1)
        z = z / (z.abs().sum(2, keepdim=True) + 1e-3)
        return (F.one_hot(m.initial_cell, m.num_cells + 1) * temperature + (1 - temperature) * z)[:, :, :-1]


class DynamicConv(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        m = self.ours
        return self.convolve(x, F.adaptive_avg_pool2d(x, 1).flatten(1), m.stride, m.padding, m.dilation, m.groups)

    def convolve(self, x: Tensor, pooled: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1,
                 groups: int = 1) -> Tensor:
        """Convolve (B, C, H, W) with a kernel for each sample."""
        m, batch = self.ours, len(x)
        out, inner, height, width = m.kernel_shape
        cells = m.warehouse.weights[m.warehouse_index]
        alpha = m.attention(pooled, m.warehouse.temperature)
        kernels = torch.mm(alpha.reshape(-1, len(cells)), cells.reshape(len(cells), -1))
        c_out, c_in = cells.shape[1:3]
        kernels = kernels.reshape(batch, height, width, out // c_out, inner // c_in, c_out, c_in)
        kernels = kernels.permute(0, 3, 5, 4, 6, 1, 2).reshape(batch * out, inner, height, width)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, None, stride, padding, dilation, groups * batch)
        y = y.reshape(batch, out, *y.shape[2:])
        return y if m.bias is None else y + m.bias.view(1, -1, 1, 1)


class DynamicLinear(DynamicConv):

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2).unsqueeze(-1)
        y = self.convolve(tokens, F.adaptive_avg_pool2d(tokens, 1).flatten(1))
        return y.squeeze(-1).transpose(1, 2).reshape(*x.shape[:-1], -1)


class HierarchicalAttention(_Swapped):

    def forward(self, x: Tensor) -> Tensor:
        m, (batch, channels, height, width) = self.ours, x.shape
        heads, grid = channels // m.head_width, m.grid_size
        q, k, v = m.qkv(m.norm(x)).reshape(batch, 3, heads, m.head_width, height, width).unbind(1)
        if grid == 1:
            q, k, v = (t.flatten(3).transpose(-2, -1) for t in (q, k, v))
            return m.proj(self.attend(q, k, v).transpose(-2, -1).reshape(x.shape))

        def windows(t: Tensor) -> Tensor:
            t = t.reshape(batch, heads, m.head_width, height // grid, grid, width // grid, grid)
            return t.permute(0, 1, 3, 5, 4, 6, 2).reshape(batch, heads, -1, grid * grid, m.head_width)

        local = self.attend(windows(q), windows(k), windows(v))
        local = local.reshape(batch, heads, height // grid, width // grid, grid, grid, m.head_width)
        local = m.grid_norm(x + local.permute(0, 1, 6, 2, 4, 3, 5).reshape(x.shape))
        q = m.q(local).reshape(batch, heads, m.head_width, -1).transpose(-2, -1)
        pooled = m.ds_norm(F.avg_pool2d(local, m.pool_ratio))
        k, v = m.kv(pooled).reshape(batch, 2, heads, m.head_width, -1).transpose(-2, -1).unbind(1)
        y = self.attend(q, k, v).transpose(-2, -1).reshape(x.shape)
        return m.proj(y + local)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1) * self.ours.head_width**-0.5
        return scores.softmax(dim=-1) @ v


_SWAPS = {
    _BatchNorm: Norm,
    ops.LayerNorm2d: MapLayerNorm,
    ops.GlobalLocalFilter: Filter,
    ops.GnConv2d: GnConv,
    ops.DecomposedLargeKernelConv2d: LargeKernel,
    ops.ParC2d: ParC,
    ops.ParCHW2d: ParCBoth,
    KWAttention: Attention,
    ops.KWConv2d: DynamicConv,
    ops.KWLinear: DynamicLinear,
    ops.HMHSA: HierarchicalAttention,
}


def published(model: nn.Module) -> nn.Module:
    """Copy a model into the published formulation, with the same parameters (the tensors are shared)."""
    model = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    if hasattr(model, 'patch_embed'):  # TransCNN converts its images to channels-last
        model.patch_embed.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), ))
    _swap(model)
    return model


def _swap(module: nn.Module) -> None:
    for name, child in module.named_children():
        _swap(child)
        for kind, swapped in _SWAPS.items():
            if isinstance(child, kind):
                setattr(module, name, swapped(child))
        if hasattr(child, 'pwconv2') and not hasattr(child, 'ours'):
            setattr(module, name, ConvNeXtBlock(child))
