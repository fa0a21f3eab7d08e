"""Large depthwise kernels that are trained as several normalised branches, and folded for deployment."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from plugconv_mm.errors import CheckpointError
from plugconv_mm.ops.mechanisms.batch_norm import fold_batch_norm
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.ops.mechanisms.thin_kernels.forms import check_form


class Branch(nn.Sequential):
    """A depthwise convolution of odd kernel sizes and its normalisation."""
    conv: nn.Conv2d
    bn: nn.Module

    def __init__(self, channels: int, kernel_size: tuple[int, int], norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        height, width = kernel_size
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=(height // 2, width // 2), groups=channels,
                              bias=False)
        self.bn = norm_layer(channels)


class LargeBranches(nn.Module):
    """One or two depthwise convolutions with large kernels and perhaps one with a small kernel, normalised and summed.

    A subclass makes the branches that ``large`` names, calls ``_add_small`` and defines ``forward``.

    Attributes:
        large: Names of the branches that stay when deployed; the small one goes into the first of them.
        unlike: A branch that only the other kind of large kernel has, and what to say to weights with one.
        form: Name of the form of the convolutions.
        deployed: Whether biased convolutions are all that is left.
    """
    large: ClassVar[tuple[str, ...]]
    unlike: ClassVar[tuple[str, str]]

    def __init__(self, channels: int, kernel_size: int, small_kernel: int | None, form: str) -> None:
        super().__init__()
        for name, size in (('kernel_size', kernel_size), ('small_kernel', small_kernel)):
            if size is not None and (size < 1 or size % 2 == 0):
                raise ValueError(f'{name} must be odd and positive, so that kernels share a centre, got {size}')
        self.channels, self.kernel_size, self.small_kernel = channels, kernel_size, small_kernel
        check_form(form)
        self.form = form
        self.deployed = False
        self.small_conv: Branch | None = None

    def _add_small(self, norm_layer: Callable[[int], nn.Module]) -> None:
        """Make the branch of the small kernel, where that is smaller than the large one."""
        size = self.small_kernel
        if size is not None and size < self.kernel_size:
            self.small_conv = Branch(self.channels, (size, size), norm_layer)

    def _plain_layers(self) -> tuple[list[nn.Conv2d], list[nn.Module]]:
        """Convolutions and normalisations, or none, if the convolutions have to be called."""
        parts = [part for part in (*(getattr(self, name) for name in self.large), self.small_conv) if part is not None]
        convs, norms = [], []
        for part in parts:
            conv = part if self.deployed else cast(Branch, part).conv if is_plain(part, nn.Sequential) else None
            if conv is None or not is_plain(conv, nn.Conv2d) or (conv.bias is None) == self.deployed:
                return [], []
            convs.append(conv)
            if not self.deployed:
                norms.append(part.bn)
        return convs, norms

    def _folded(self, convs: Sequence[nn.Conv2d], norms: Sequence[nn.Module]) -> list[tuple[Tensor, Tensor]]:
        """Kernel (C, 1, kh, kw) and bias (C) of each large convolution."""
        kernels: list[Tensor] = [conv.weight for conv in convs]
        biases: list[Any] = [conv.bias for conv in convs]
        for i, norm in enumerate(norms):
            scale, biases[i] = fold_batch_norm(cast(_BatchNorm, norm))
            kernels[i] = kernels[i] * scale[:, None, None, None]
        if len(convs) > len(self.large):
            rows, columns = ((large - small) // 2
                             for large, small in zip(kernels[0].shape[2:], kernels[-1].shape[2:], strict=True))
            padded = F.pad(kernels[-1], (columns, columns, rows, rows))
            kernels[0] = kernels[0] + padded.view(kernels[0].shape)  # whose shape TorchScript's exporter then knows
            biases[0] = biases[0] + biases[-1]
        return list(zip(kernels, biases, strict=True))[:len(self.large)]

    def _called(self, x: Tensor) -> Tensor:
        """The sum of the branches, by calls of their layers."""
        parts = [part for part in (*(getattr(self, name) for name in self.large), self.small_conv) if part is not None]
        return self._total(parts, [x] * len(parts))

    @staticmethod
    def _total(layers: Sequence[nn.Module], maps: Sequence[Tensor]) -> Tensor:
        """The sum of the outputs of layers, each for a map of its own."""
        total = layers[0](maps[0])
        for layer, x in zip(layers[1:], maps[1:], strict=True):
            total = total + layer(x)
        return total

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f'expected (N, {self.channels}, H, W), got {tuple(x.shape)}')

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # A loader that is not strict would pass over the other form's names and leave the kernels as they are.
        first, (other, advice) = self.large[0], self.unlike
        if f'{prefix}{other}.conv.weight' in state_dict or f'{prefix}{other}.weight' in state_dict:
            raise CheckpointError(f'these weights of the large kernel {prefix!r} are {advice}')
        if self.deployed and f'{prefix}{first}.conv.weight' in state_dict:
            raise ValueError(
                f'the large kernel {prefix!r} is deployed, and these weights are not: load them before '
                'switch_to_deploy(), or fold them first with tools/model_converters/switch_to_deploy.py')
        if not self.deployed and f'{prefix}{first}.weight' in state_dict:
            raise ValueError(
                f'these weights of the large kernel {prefix!r} are deployed, and the module is not: build SLaK with '
                'deploy=True, or call switch_to_deploy() before loading them')
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold everything into biased convolutions, for good; the output stays that of evaluation mode.

        The parameters are then ``weight`` and ``bias`` under the names in ``large``.

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
        for name, old, (weight, bias) in zip(self.large, convs, self._folded(convs, norms), strict=False):
            self.add_module(name, self._deployed_conv(old, weight, bias))
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
