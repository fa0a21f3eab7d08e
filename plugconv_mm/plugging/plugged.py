"""Layers with an operator added to them, which start as the layers alone."""
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.ops import switch_to_deploy
from plugconv_mm.ops.mechanisms.large_branches import LargeBranches
from plugconv_mm.ops.mechanisms.long_kernels import is_depthwise
from plugconv_mm.ops.mechanisms.plain_layer import is_plain
from plugconv_mm.plugging.attention import Call, Grid, TokenMixer
from plugconv_mm.plugging.embedding import add_kernel, conv_with_room


class Beside(nn.Module):
    """A layer and an operator beside it: base(x) + gamma · new(x), of which gamma is zero at first.

    What it computes at first is what the layer computed, to the bit, for finite inputs. The operator gets gradients as
    soon as gamma has changed, after the first step. Attributes of the layer, such as ``weight`` or ``in_channels``, are
    found here too, and weights under the layer's own names are loaded into it.

    Args:
        base: The layer, which stays as it is.
        new: The operator.
        channels: Channels of the output.
    """

    def __init__(self, base: nn.Module, new: nn.Module, channels: int) -> None:
        super().__init__()
        self.base = base
        self.new = new
        self.gamma = nn.Parameter(next(base.parameters()).new_zeros(channels))
        self.register_load_state_dict_pre_hook(self._take_names_of_base)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ('base', 'new', 'gamma'):
                raise
            return getattr(self.base, name)

    @staticmethod
    def _add(out: Tensor, gamma: Tensor, new: Tensor) -> Tensor:
        """out + gamma · new, in the strides of `out`.

        PyTorch leaves the strides of axes of length 1 open, and the next layer goes by them when it chooses its
        algorithm, whose rounding would differ.
        """
        total = torch.addcmul(out, gamma, new)
        open_axes = all(n == 1 or a == b for n, a, b in zip(out.shape, out.stride(), total.stride(), strict=True))
        return total.as_strided(out.shape, out.stride()) if open_axes and total.stride() != out.stride() else total

    @staticmethod
    def _take_names_of_base(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Rename the weights of a model that was not plugged yet."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            rest = key.removeprefix(prefix)
            if not rest.startswith(('base.', 'new.')) and rest != 'gamma':
                state_dict[f'{prefix}base.{rest}'] = state_dict.pop(key)


class PluggedConv2d(Beside):
    """A convolution and an operator beside it, see :class:`Beside`.

    Args:
        base: The convolution, which stays as it is.
        new: The operator.

    Shapes:
        (N, C, H, W) -> as `base` gives it.
    """

    def __init__(self, base: nn.Module, new: nn.Module) -> None:
        super().__init__(base, new, base.out_channels)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self._add(self.base(x), self.gamma[:, None, None], self.new(x))

    @torch.no_grad()
    def as_one(self) -> nn.Module | None:
        """The operator with gamma and the convolution in its kernels, if it is a large kernel that has room for them.

        The large kernel has to be deployed.
        """
        base, new = self.base, self.new
        if not (isinstance(new, LargeBranches) and is_plain(base, nn.Conv2d) and is_depthwise(base)):
            return None
        conv = conv_with_room(new, base.kernel_size)
        if conv is None:
            return None
        for name in new.large:
            getattr(new, name).weight *= self.gamma[:, None, None, None]
            getattr(new, name).bias *= self.gamma
        add_kernel(conv, base)
        return new


class PluggedBlock(Beside):
    """A residual block, and what another adds to the map, see :class:`Beside`: base(x) + gamma · (new(x) - x).

    Args:
        base: The block, which stays as it is.
        new: The other, a residual block, too.
        channels: Channels of the map.

    Shapes:
        (N, C, H, W) -> (N, C, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        return self._add(self.base(x), self.gamma[:, None, None], self.new(x) - x)


class PluggedAttention(Beside):
    """An attention and an operator on the map that its tokens form, see :class:`Beside`.

    Args:
        base: The attention, which stays as it is.
        new: The operator, which reads the call of the attention.
        channels: Channels of the tokens.

    Shapes:
        As `base` takes and gives them.
    """

    new: TokenMixer

    def __init__(self, base: nn.Module, new: TokenMixer, channels: int) -> None:
        super().__init__(base, new, channels)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.base(*args, **kwargs)
        kind = self.new.kind
        return out if kind.windows else self.add(out, kind.read(*args, **kwargs))  # mix_windows has the whole map

    def add(self, out: Any, call: Call) -> Any:
        """Add the operator to what the attention gave for a call."""
        tokens, *others = out if isinstance(out, tuple) else (out, )
        tokens = self._add(tokens, self.gamma, self.new.mix(call))
        return (tokens, *others) if isinstance(out, tuple) else tokens


def mix_windows(block: nn.Module, x: Tensor) -> Tensor:
    """``_attn`` of a Swin block of timm, which sees the whole map (N, H, W, C) where its attention sees windows."""
    attention, call = block.attn, Call(x, x.shape[1:3])
    if isinstance(attention, PluggedAttention):
        return attention.add(type(block)._attn(block, x), call)  # type: ignore[attr-defined]
    return attention.mix(call)  # type: ignore[operator,union-attr]


def merge(model: nn.Module) -> list[str]:
    """Bring a model into its deployment form, in which sums of a layer and an operator are one layer where they can be.

    A depthwise convolution and a large kernel beside it are one large kernel. Any other sum of a layer and an operator
    is no single convolution and stays; :func:`plugconv_mm.ops.switch_to_deploy` does what is left.

    Args:
        model: The model, which is changed in place; what it computes stays that of evaluation mode, within rounding.

    Returns:
        The names of the layers that are one now.

    Raises:
        ValueError: As :func:`plugconv_mm.ops.switch_to_deploy`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from plugconv_mm.plugging import merge, plug
        >>> net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8)).eval()
        >>> report = plug(net, [dict(target='0', start='residual', to=dict(type='LargeKernelConv2d', large_kernel=13))])
        >>> merge(net), list(net.state_dict())
        (['0'], ['0.large_conv.weight', '0.large_conv.bias'])
    """
    switch_to_deploy(model)
    merged: dict[nn.Module, nn.Module] = {}
    names: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, PluggedConv2d) and module not in merged and (one := module.as_one()):
            merged[module] = one
        if module in merged:
            names[name] = merged[module]
    replace(model, names)
    return list(names)


def unplug(model: nn.Module) -> list[str]:
    """Take out what was plugged with ``start='residual'``, so that the layers stand alone again.

    Args:
        model: The model, which is changed in place.

    Returns:
        The names of the layers.
    """
    plugged: dict[str, Beside] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Beside):
            for outer in plugged:
                if name.startswith(f'{outer}.base.'):
                    name = name.replace(f'{outer}.base.', f'{outer}.', 1)
            plugged[name] = module
    replace(model, {name: module.base for name, module in plugged.items()})
    for name in plugged:
        model.get_submodule(name.rpartition('.')[0]).__dict__.pop('_attn', None)
    read = {id(module.grid) for module in model.modules() if isinstance(module, TokenMixer)}
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, Grid) and id(hook) not in read:
                del module._forward_hooks[key]
    return list(plugged)


def replace(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put modules in the places of those of these names; those inside others first, while these have their names."""
    for name, module in sorted(modules.items(), key=lambda item: -item[0].count('.')):
        parent, _, child = name.rpartition('.')
        owner = model.get_submodule(parent)
        owner = owner.base if isinstance(owner, Beside) else owner
        setattr(owner, child, module)
        mixer = module.new if isinstance(module, PluggedAttention) else module
        if isinstance(mixer, TokenMixer) and mixer.kind.windows:
            owner.__dict__['_attn'] = functools.partial(mix_windows, owner)
