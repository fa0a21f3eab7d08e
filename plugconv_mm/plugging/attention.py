"""Operators on the maps that the tokens of an attention form.

Multi-head self-attention of these classes is known, by the name of the class, the arguments of its ``forward`` and the
attributes that give its width; of whatever package, none of which is imported.

===============================  ===================================  ===========================
class                            of                                   its map
===============================  ===================================  ===========================
``Attention``                    ViT and DeiT of timm                 that of the patch embedding
``Attention``                    PVTv2 of timm                        in the call
``WindowAttention``              Swin and SwinV2 of timm              in the call of its block
``MultiheadAttention``           torch, as in torchvision's ViT       that of the patch embedding
``MultiheadAttention``           ViT and DeiT of mmpretrain           that of the patch embedding
``MultiheadAttention``           mmcv, as in mmseg's ViT              that of the patch embedding
``ShiftWindowMSA``               Swin of mmpretrain, mmdet and mmseg  in the call
``SpatialReductionAttention``    PVT and PVTv2 of mmdet               in the call
``EfficientMultiheadAttention``  MiT, of SegFormer, of mmseg          in the call
``ShiftedWindowAttention``       Swin of torchvision; ``…V2``, too    its input
===============================  ===================================  ===========================

Tokens ahead of the map, such as the class token, get the mean of the map that the operator gives: as they are no part
of the map, they would otherwise learn nothing of it, and a head on the class token would see no image.
"""
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.errors import PlugError


@dataclass
class Call:
    """What an attention is called with.

    Attributes:
        x: Tokens (N, L, C), or a map (N, H, W, C).
        size: H and W of the map, where the call gives them.
        identity: What the attention adds its output to, where it does.
    """
    x: Tensor
    size: Sequence[int] | None = None
    identity: Tensor | None = None


@dataclass(frozen=True)
class Kind:
    """How one class of attention is called.

    Attributes:
        read: A function with the arguments of its ``forward``.
        width: Attributes that are the channels of its input and of its output.
        drop: Attribute that is its stochastic depth, which stays where the attention goes.
        sized: Whether its call gives the size of the map.
        windows: Whether it is called with windows of the map.
        pair: Whether it returns its output and weights.
    """
    read: Callable[..., Call]
    width: tuple[str, str]
    drop: str = ''
    sized: bool = False
    windows: bool = False
    pair: bool = False


def _check_plain(is_plain: bool, what: str) -> None:
    if not is_plain:
        raise PlugError(f'an operator takes the place of self-attention over the whole map, and this attention was '
                        f'called {what}: exclude it from the rule')


def _read_tokens(x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Call:
    _check_plain(attn_mask is None and not is_causal, 'with a mask')
    return Call(x)


def _read_torch(query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> Call:
    _check_plain(query is key is value, 'with a key or value that is not its query, as cross-attention')
    _check_plain(key_padding_mask is None and attn_mask is None and not is_causal, 'with a mask')
    return Call(query)


def _read_mmcv(query: Tensor, key: Tensor | None = None, value: Tensor | None = None, identity: Tensor | None = None,
               query_pos: Tensor | None = None, key_pos: Tensor | None = None, attn_mask: Tensor | None = None,
               key_padding_mask: Tensor | None = None) -> Call:
    _check_plain((key is None or key is query) and (value is None or value is query),
                 'with a key or value that is not its query, as cross-attention')
    _check_plain(query_pos is None and key_pos is None, 'with position encodings of its query or key')
    _check_plain(attn_mask is None and key_padding_mask is None, 'with a mask')
    return Call(query, identity=query if identity is None else identity)


def _read_feat_size(x: Tensor, feat_size: Sequence[int]) -> Call:
    return Call(x, feat_size)


def _read_hw_shape(query: Tensor, hw_shape: Sequence[int]) -> Call:
    return Call(query, hw_shape)


def _read_hw_shape_identity(x: Tensor, hw_shape: Sequence[int], identity: Tensor | None = None) -> Call:
    return Call(x, hw_shape, x if identity is None else identity)


def _read_map(x: Tensor) -> Call:
    return Call(x, x.shape[1:3])


def _read_windows(x: Tensor, mask: Tensor | None = None) -> Call:
    raise PlugError('this attention was called with windows by another module than the block that it was plugged in')


_REDUCED = Kind(_read_hw_shape_identity, ('embed_dims', 'embed_dims'), 'dropout_layer', sized=True)
_SHIFTED = Kind(_read_map, ('qkv.in_features', 'proj.out_features'), sized=True)
ATTENTIONS: dict[str, tuple[Kind, ...]] = {
    'Attention': (Kind(_read_tokens, ('qkv.in_features', 'proj.out_features')),
                  Kind(_read_feat_size, ('q.in_features', 'proj.out_features'), sized=True)),
    'EfficientMultiheadAttention': (_REDUCED, ),
    'MultiheadAttention': (Kind(_read_torch, ('embed_dim', 'embed_dim'), pair=True),
                           Kind(_read_tokens, ('input_dims', 'embed_dims'), 'out_drop'),
                           Kind(_read_mmcv, ('embed_dims', 'embed_dims'), 'dropout_layer')),
    'ShiftWindowMSA': (Kind(_read_hw_shape, ('w_msa.embed_dims', 'w_msa.embed_dims'), 'drop', sized=True), ),
    'ShiftedWindowAttention': (_SHIFTED, ),
    'ShiftedWindowAttentionV2': (_SHIFTED, ),
    'SpatialReductionAttention': (_REDUCED, ),
    'WindowAttention': (Kind(_read_windows, ('qkv.in_features', 'proj.out_features'), sized=True, windows=True), ),
}


def kind_of(module: nn.Module) -> Kind | None:
    """How a module is called, if it is an attention that is known."""
    for kind in ATTENTIONS.get(type(module).__name__, ()):
        taken = [p.name for p in inspect.signature(type(module).forward).parameters.values()
                 if p.kind is not inspect.Parameter.VAR_KEYWORD][1:]
        reads = inspect.signature(kind.read).parameters
        needed = [p.name for p in reads.values() if p.default is inspect.Parameter.empty]
        if taken == list(reads)[:len(taken)] and taken[:len(needed)] == needed:
            try:
                attrgetter(*kind.width)(module)
            except AttributeError:
                continue
            return kind
    return None


def attentions_of(model: nn.Module) -> dict[str, nn.Module]:
    """The attentions of a model that are known, by name; of those within one another, the outermost."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and kind_of(module) and not any(name.startswith(f'{outer}.') for outer in found):
            found[name] = module
    return found


def width_of(model: nn.Module, name: str, kind: Kind) -> int:
    """Channels of the tokens of an attention.

    Raises:
        ValueError: If no operator can take its place where it is in the model.
    """
    attention = model.get_submodule(name)
    parent, _, child = name.rpartition('.')
    owner = model.get_submodule(parent)
    before, after = attrgetter(*kind.width)(attention)
    if before != after:
        raise ValueError(f'it makes {after} channels of {before}, and the operators keep the number of channels')
    if not getattr(attention, 'batch_first', True):
        raise ValueError('it takes tokens ahead of the batch, (L, N, C): build it with batch_first=True')
    if isinstance(owner, nn.TransformerEncoderLayer):
        raise ValueError(f'{type(owner).__name__} reads the weights of its attention and may pass it by')
    if kind.windows and not (child == 'attn' and callable(getattr(type(owner), '_attn', None))):
        raise ValueError(f'it works on windows, and {type(owner).__name__} is no block whose method _attn makes them '
                         'of the map')
    return before


def prefix_of(model: nn.Module, name: str) -> int:
    """Number of tokens ahead of the map, as the network around an attention says it."""
    while name:
        name = name.rpartition('.')[0]
        network = model.get_submodule(name)
        for attribute in ('num_prefix_tokens', 'num_extra_tokens'):
            if isinstance(getattr(network, attribute, None), int):
                return getattr(network, attribute)
        if any(isinstance(getattr(network, attribute, None), Tensor) for attribute in ('cls_token', 'class_token')):
            return 1
    return 0


class Grid:
    """H and W of the map that a convolution, the patch embedding, made last: its forward hook."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        height, width = output.shape[2:]
        self.size = int(height), int(width)


class TokenMixer(nn.Module):
    """An operator on the map that tokens form, with the arguments and the output of an attention.

    Tokens ahead of the map get the mean of the new map. Where the attention returned its weights, None stands for them.

    Args:
        operator: The operator, (N, C, H, W) -> (N, C, H, W).
        kind: How the attention is called.
        drop: Its stochastic depth.
        prefix: Number of tokens ahead of the map; a call without them is understood, too.
        grid: H and W of the map, or what knows them, where calls do not give them.

    Shapes:
        As the attention takes and gives them.

    Raises:
        PlugError: In forward, for tokens that form no map of the grid, for masks, and for cross-attention.
    """

    def __init__(self, operator: nn.Module, kind: Kind, drop: nn.Module, prefix: int = 0,
                 grid: tuple[int, int] | Grid | None = None) -> None:
        super().__init__()
        self.operator = operator
        self.drop = drop
        self.kind, self.prefix, self.grid = kind, prefix, grid

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = self.kind.read(*args, **kwargs)
        out = self.drop(self.mix(call))
        out = out if call.identity is None else call.identity + out
        return (out, None) if self.kind.pair else out

    def mix(self, call: Call) -> Tensor:
        """The operator on the map of a call, in the shape of its tokens."""
        x = call.x if call.size is None else call.x.flatten(1, -2)
        size = call.size if call.size is not None else self.grid.size if isinstance(self.grid, Grid) else self.grid
        if size is None:
            raise PlugError('the tokens are of a map of unknown size, as the convolution of the patch embedding has '
                            'not run: call the whole model, or give the rule grid=(H, W)')
        height, width = size
        if x.dim() != 3:
            raise PlugError(f'tokens (N, L, C) are expected, got {tuple(x.shape)}')
        ahead = x.shape[1] - height * width
        if ahead not in (0, self.prefix):
            raise PlugError(f'{x.shape[1]} tokens form no map of {height}x{width} with {self.prefix} tokens ahead of '
                            'it: give the rule grid=(H, W) and prefix, the number of tokens ahead, that fit')
        y = x[:, ahead:].transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)
        y = self.operator(y).flatten(2).transpose(1, 2)
        if ahead:
            y = torch.cat((y.mean(1, keepdim=True).expand(-1, ahead, -1), y), dim=1)
        return y.reshape(call.x.shape)

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Nothing, as there are no windows any more; blocks of Swin call it for another size of the image."""
