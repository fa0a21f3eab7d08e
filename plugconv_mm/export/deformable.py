"""Deformable convolutions of mmcv in a form that an exporter can follow."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torchvision.ops import deform_conv2d

from plugconv_mm.compat import bridge
from plugconv_mm.compat.replaced import replaced
from plugconv_mm.export.candidates import in_modules

_NAMES = ('DeformConv2d', 'DeformConv2dPack', 'ModulatedDeformConv2d', 'ModulatedDeformConv2dPack')


def why_not(kind: type) -> str:
    """Say why layers of a class of mmcv are not exported, as a clause; nothing if they are."""
    if kind.__name__ not in _NAMES:
        return 'an operator that ONNX Runtime lacks'
    if bridge.in_use() == 'torchvision':
        return ''
    return f"compiled: with {bridge.ENVIRONMENT_VARIABLE}=torchvision, torchvision's operator is exported in its place"


@contextmanager
def plain_deformable_convolutions() -> Iterator[None]:
    """Call torchvision's operator, without mmcv's function around it, which makes the number of images a constant."""
    with replaced([*in_modules('deform_conv2d', _deform_conv2d),
                   *in_modules('modulated_deform_conv2d', _modulated_deform_conv2d)]):
        yield


def _deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                   *_: Any) -> Tensor:
    """``deform_conv2d`` of mmcv; numbers of groups follow from the shapes."""
    return deform_conv2d(input, offset, weight, None, stride, padding, dilation)


def _modulated_deform_conv2d(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None,
                             stride: Any = 1, padding: Any = 0, dilation: Any = 1, *_: Any) -> Tensor:
    """``modulated_deform_conv2d`` of mmcv; numbers of groups follow from the shapes."""
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)
