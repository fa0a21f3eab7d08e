"""Backbones whose blocks are recomputed in the backward pass, with norms of every kind, alone and in two processes."""
from unittest import mock

import torch
import torch.distributed as dist
from tiny_training import join
from torch import nn
from torch.nn.modules import batchnorm

from plugconv_mm.ops import LayerNorm2d
from plugconv_mm.registry import MODELS
from plugconv_mm.runtime.distributed import leave_group


class RunningNorm(nn.Module):
    """A norm by its running deviation alone, which it replaces, not updates, before it uses it."""

    def __init__(self, channels, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer('running_std', torch.ones(channels))
        self.register_buffer('calls', torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, x):
        if self.training:
            self.running_std = 0.7 * self.running_std + 0.3 * x.detach().std((0, 2, 3))
            self.calls += 1
        return x * (self.weight / (self.running_std + self.eps))[:, None, None]


class Renorm(nn.Module):
    """Batch renormalisation: the gradient goes through the batch's statistics, the values are of the running ones."""

    def __init__(self, channels, eps):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)

    @property
    def weight(self):
        return None

    def forward(self, x):
        if not self.training:
            return self.norm(x)
        std = (self.norm.running_var + self.norm.eps).sqrt()[:, None, None]
        mean, batch_std = self.norm.running_mean[:, None, None], x.detach().std((0, 2, 3), keepdim=True)
        r, d = (batch_std / std).clamp(0.3, 3), ((x.detach().mean((0, 2, 3), keepdim=True) - mean) / std).clamp(-3, 3)
        return self.norm(x) * r + d


NORMS = {
    'BN': dict(type='BN'),
    'BN-cumulative': dict(type='BN', momentum=None),
    'BN-without-statistics': dict(type='BN', track_running_stats=False),
    'SyncBN': dict(type='SyncBN'),
    'SyncBN-cumulative': dict(type='SyncBN', momentum=None),
    'IN': dict(type='IN'),
    'IN-with-statistics': dict(type='IN', affine=True, track_running_stats=True),
    'GN': dict(type='GN', num_groups=2),
    'LN': dict(type=LayerNorm2d),
    'running': dict(type=RunningNorm),
    'renorm': dict(type=Renorm),
}
BACKBONES = {
    'parc-resnet': dict(type='ParCResNet', base_channels=8),
    'kw-mobilenetv2': dict(type='KWMobileNetV2', widen_factor=0.25, norm_eval=False),
    'transcnn': dict(type='TransCNN', head_width=8, arch=dict(
        depths=[1, 1, 1, 1], channels=[8, 16, 24, 32], expand_ratios=[2, 2, 2, 2])),
    'hat-net': dict(type='HATNet', arch=dict(
        depths=[1, 1, 1, 1], channels=[8, 16, 24, 32], head_widths=[8] * 4, expand_ratios=[2, 2, 2, 2],
        kernel_sizes=[3] * 4)),
}


def images(seed, n=2):
    return torch.randn(n, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def loss(outs):
    return sum((out * torch.randn(out.shape, generator=torch.Generator().manual_seed(i))).mean()
               for i, out in enumerate(outs))


def build(cfg, norm_cfg, with_cp):
    torch.manual_seed(0)
    model = MODELS.build(cfg | dict(norm_cfg=norm_cfg, with_cp=with_cp, drop_path_rate=0.2))
    model.init_weights()
    return model.train()


def outcome(model, outs):
    return (*outs, {name: p.grad for name, p in model.named_parameters()}, dict(model.named_buffers()))


class SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


class OnCPU:
    """Stands in for the CUDA kernels behind SyncBatchNorm; the arguments are theirs."""

    @staticmethod
    def apply(x, weight, bias, running_mean, running_var, eps, momentum, group, world_size):
        count = SumOverProcesses.apply(torch.full((1, ), float(x.numel() // x.shape[1])))
        mean = SumOverProcesses.apply(x.sum((0, 2, 3))) / count
        var = SumOverProcesses.apply((x - mean[:, None, None]).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * count / (count - 1), momentum)
        x = (x - mean[:, None, None]) / (var + eps).sqrt()[:, None, None]
        return x * weight[:, None, None] + bias[:, None, None]


class SyncBatchNormOnCPU(nn.SyncBatchNorm):
    def forward(self, x):
        with (mock.patch.object(torch._C, '_get_privateuse1_backend_name', lambda: 'cpu'),  # a device that it takes
              mock.patch.object(batchnorm, 'sync_batch_norm', OnCPU)):
            return super().forward(x)


def recompute_in_two_processes(rank, folder, port):
    """One of two processes, with another number of images than the other; it leaves what came of them."""
    join(rank, port)
    results = []
    for with_cp in (False, True):
        for momentum in (0.1, None):
            model = build(BACKBONES['parc-resnet'], dict(type=SyncBatchNormOnCPU, momentum=momentum), with_cp)
            outs = model(images(1 + rank, n=1 + rank))
            loss(outs).backward()
            results.append(outcome(model, outs))
    torch.save(results, f'{folder}/{rank}.pth')
    leave_group()
