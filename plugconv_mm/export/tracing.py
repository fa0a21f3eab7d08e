"""What stands for code of OpenMMLab that an exporter cannot follow, as long as it traces a model.

It gives the same values. Sizes of maps stay known, though mmdet makes tensors of them; and the number of images stays a
variable, though code counts them with ``len`` or ``int``.
"""
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from plugconv_mm.compat.replaced import Place, replaced

_SWIN = ('mmdet.models.backbones.swin', 'mmseg.models.backbones.swin')
_MASK_FORMER = (('mmdet.models.dense_heads.maskformer_head', 'MaskFormerHead'),
                ('mmdet.models.layers.pixel_decoder', 'TransformerEncoderPixelDecoder'))


@contextmanager
def traceable() -> Iterator[None]:
    """Replace what cannot be followed, as long as a model is exported; nothing elsewhere."""
    if not torch.compiler.is_exporting():
        yield
        return
    places: list[Place] = [(torch, '_shape_as_tensor', _Shape),
                           (F, 'adaptive_avg_pool2d', _pooling_of_any_size(F.adaptive_avg_pool2d))]
    # DINO adds nothing, times 0, to as many images as it has queries: no number of images shall be such a case.
    places += [(module, 'len', lambda _: 0) for module in _loaded('mmdet.models.detectors.dino')]
    places += [(module.ShiftWindowMSA, 'window_reverse', _window_reverse) for module in _loaded(*_SWIN)]
    for name, kind in _MASK_FORMER:
        for module in _loaded(name):
            places.append((module, 'range', _no_images))
            places.append((getattr(module, kind), 'forward', _without_padding(getattr(module, kind).forward)))
    places += [(module, 'inverse_sigmoid', _inverse_sigmoid) for name, module in list(sys.modules.items())
               if name.startswith('mmdet.models.') and 'inverse_sigmoid' in vars(module)]
    with replaced(places):
        yield


def one_for_each(meta: Any, images: Tensor) -> list:
    """What is known of each image, the same of all; once only while tracing, where their number is a variable."""
    return [meta] if torch.compiler.is_exporting() else [meta] * len(images)


def _pooling_of_any_size(pool: Callable) -> Callable:
    """Adaptive pooling; of maps whose size is a variable as products, since torch.export asks how wide each bin is."""
    def pooling(x: Tensor, output_size: Any) -> Tensor:
        numbers = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        sizes = x.shape[-2:]
        if numbers == (1, 1) or all(isinstance(size, int) for size in sizes):
            return pool(x, output_size)
        rows, columns = (_bins(size, size if number is None else number, x)
                         for number, size in zip(numbers, sizes, strict=True))
        return rows @ x @ columns.transpose(0, 1)

    return pooling


def _bins(size: Any, number: Any, like: Tensor) -> Tensor:
    """The share of each of the places (`number`, `size`) in the bins of adaptive pooling."""
    places, bins = (torch.arange(n, device=like.device) for n in (size, number))
    first, last = bins * size // number, ((bins + 1) * size + number - 1) // number
    inside = (places >= first[:, None]) & (places < last[:, None])
    return inside.to(like.dtype) / (last - first)[:, None].to(like.dtype)


def _loaded(*names: str) -> list[Any]:
    return [sys.modules[name] for name in names if name in sys.modules]


def _no_images(*numbers: int) -> Sequence[int]:
    """``range``, but for that over images, in which MaskFormer clears what is no padding."""
    return () if len(numbers) == 1 else range(*numbers)


def _without_padding(forward: Callable) -> Callable:
    """A forward pass of MaskFormer whose mask of padding, ones at first, is clear: the images fill the batch."""
    def unpadded(*args: Any) -> Any:
        with replaced([(Tensor, 'new_ones', Tensor.new_zeros)]):
            return forward(*args)

    return unpadded


def _window_reverse(self: Any, windows: Tensor, height: int, width: int) -> Tensor:
    """Windows (B · N, S, S, C) side by side in maps (B, H, W, C), with the number of images left to the view."""
    side = self.window_size
    rows = windows.view(-1, height // side, width // side, side, side, windows.shape[-1]).transpose(2, 3)
    return rows.reshape(-1, height, width, windows.shape[-1])


def _inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """That of mmdet, each side clipped once: where one clip follows another, the exporter merges both and fails."""
    return torch.log(x.clamp(eps, 1.) / (1 - x).clamp(eps, 1.))


class _Shape:
    """The shape of a tensor, whose parts are known sizes.

    Args:
        tensor: The tensor.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.shape = tensor.shape

    def __getitem__(self, places: slice) -> Tensor:
        with _disable_current_modes():
            return torch.tensor([int(size) for size in self.shape[places]]).as_subclass(_Known)


class _Known(torch.Tensor):
    """A tensor of known numbers: what is computed of such alone is known, and single ones are Python's numbers.

    With any other tensor, it is a constant of the graph.
    """

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if all(isinstance(leaf, _Known) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)):
            with torch._C.DisableTorchFunctionSubclass(), _disable_current_modes():
                return tree_map_only(Tensor, lambda y: y.as_subclass(_Known) if y.dim() else y.item(),
                                     function(*args, **kwargs))
        args, kwargs = tree_map_only(_Known, _constant, (args, kwargs))
        return function(*args, **kwargs)

    def __iter__(self) -> Iterator:
        return iter(self.unbind(0))


def _constant(known: _Known) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass(), _disable_current_modes():
        values, dtype = known.tolist(), known.dtype
    return torch.tensor(values, dtype=dtype)
