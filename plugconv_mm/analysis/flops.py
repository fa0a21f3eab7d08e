"""Parameters and multiply-adds of detectors, segmentors and classifiers, by part and by kind of operator.

Nothing is computed: the model runs on fake tensors, which have shapes and no values, so a large image takes no more
time than a small one, and no memory. Transformers with deformable attention look at values, and are computed.
"""
import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from plugconv_mm.analysis.forward_parts import PARTS, run_parts
from plugconv_mm.ops import ParC2d
from plugconv_mm.ops.multiply_adds import OperatorCounter as OperatorCounter  # a name of plugconv_mm.analysis as well
from plugconv_mm.runtime.build import build_model as build_model  # a name of plugconv_mm.analysis as well


@dataclass
class ModelCost:
    """Parameters and multiply-adds of a model, as :func:`measure` counts them.

    Attributes:
        shape: Height and width of the image.
        params: Parameters by part.
        macs: Multiply-adds by part and kind of operator; ParC as Fast-ParC where its backend is 'auto'.
        parc: Multiply-adds of the ParC layers by backend, ``'spatial'`` and ``'fft'``; empty without such layers.
        parc_counted: Multiply-adds of the ParC layers in ``macs``.
    """
    shape: tuple[int, int]
    params: dict[str, int]
    macs: dict[str, Counter] = field(default_factory=lambda: {part: Counter() for part in PARTS})
    parc: dict[str, int] = field(default_factory=dict)
    parc_counted: int = 0

    @property
    def total_params(self) -> int:
        """Parameters of the whole model."""
        return sum(self.params.values())

    def total_macs(self, parc_backend: str | None = None) -> int:
        """Multiply-adds of the whole model.

        Args:
            parc_backend: ``'spatial'`` or ``'fft'`` counts all ParC layers in that form; None as in ``macs``.
        """
        total = sum(sum(counter.values()) for counter in self.macs.values())
        return total if parc_backend is None else total - self.parc_counted + self.parc[parc_backend]

    def table(self) -> str:
        """A table of parameters and multiply-adds by part and kind of operator, as text."""
        kinds = [kind for kind, _ in sum(self.macs.values(), Counter()).most_common()]
        rows = [['', *PARTS, 'all'], ['parameters (M)', *self._millions(self.params[part] for part in PARTS)]]
        rows += [[f'{kind} (G)', *self._billions(self.macs[part][kind] for part in PARTS)] for kind in kinds]
        rows += [['multiply-adds (G)', *self._billions(sum(self.macs[part].values()) for part in PARTS)]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ['  '.join(cell.rjust(width) if i else cell.ljust(width)
                           for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
        for backend, macs in self.parc.items():
            lines.append(f'ParC as {backend + ":":<8} {macs / 1e9:10.3f} G in its layers, '
                         f'{self.total_macs(backend) / 1e9:.3f} G in all')
        return '\n'.join(lines)

    @staticmethod
    def _millions(values: Iterable[int]) -> list[str]:
        values = list(values)
        return [f'{value / 1e6:.2f}' for value in (*values, sum(values))]

    @staticmethod
    def _billions(values: Iterable[int]) -> list[str]:
        values = list(values)
        return [f'{value / 1e9:.3f}' for value in (*values, sum(values))]


def padded_shape(model: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """The size to which the model's data preprocessor pads an image of this height and width."""
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    return tuple(-(-side // divisor) * divisor for side in shape)


def measure(model: nn.Module, shape: tuple[int, int], in_channels: int = 3) -> ModelCost:
    """Count parameters, and multiply-adds of one image in evaluation mode.

    All layers of the network are counted: of a two-stage detector the RPN, the box heads on 1000 proposals and the mask
    heads on 100 boxes, as for published figures; 100 masks of detectors that predict a kernel for each mask; of a
    segmentor the main head and the resize to the image. Not counted are decoding, NMS and RoIAlign, auxiliary heads,
    which only training uses, and tensors that are derived once from the weights, such as stretched kernels.

    Args:
        model: A detector of mmdet, a segmentor of mmseg, a classifier of mmpretrain, or a backbone, on the CPU. It is
            not changed.
        shape: Height and width of the image, in pixels.
        in_channels: Channels of the image.

    Raises:
        UnsupportedConfigError: A kind of head that is not known here.
        ValueError: An image without pixels, or a model that is not on the CPU.

    Example:
        >>> from plugconv_mm.models.backbones import ParCConvNeXt
        >>> cost = measure(ParCConvNeXt('xt'), (224, 224))
        >>> f'{cost.total_params / 1e6:.2f}M {cost.total_macs() / 1e9:.2f}G'
        '7.03M 1.15G'
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'the shape of an image is (height, width), got {tuple(shape)}')
    if devices := {parameter.device.type for parameter in model.parameters()} - {'cpu'}:
        raise ValueError(f'the model should be on the CPU, and parts of it are on {", ".join(sorted(devices))}')
    params = Counter()
    for name, parameter in model.named_parameters():
        part = name.partition('.')[0] if hasattr(model, 'backbone') else 'backbone'
        params[part if part in PARTS else 'head'] += parameter.numel()
    cost = ModelCost(tuple(shape), {part: params[part] for part in PARTS})

    fake = None if _looks_at_values(model) else FakeTensorMode()
    with nullcontext() if fake is None else FakeCopyMode(fake):
        model = copy.deepcopy(model)
    model.eval()  # of mmpretrain's backbones it returns None
    layers = [module for module in model.modules() if isinstance(module, ParC2d)]
    calls = []
    for layer in layers:
        layer.backend = 'fft' if layer.backend == 'auto' else layer.backend
    with torch.no_grad(), fake or nullcontext():
        image = torch.zeros(1, in_channels, *shape)
        run_parts(model, image, _uncounted)  # now the layers have what they derive from their weights
        hooks = [layer.register_forward_pre_hook(lambda layer, args: calls.append((layer, args[0].shape)))
                 for layer in layers]
        run_parts(model, image, lambda part: _counted(cost.macs[part]))
        for hook in hooks:
            hook.remove()
        cost.parc_counted = sum(_layer_macs(layer, shape, layer.backend) for layer, shape in calls)
        for backend in ('spatial', 'fft') if calls else ():
            cost.parc[backend] = sum(_layer_macs(layer, shape, backend) for layer, shape in calls)
    return cost


def _looks_at_values(model: nn.Module) -> bool:
    """Whether the sizes of maps are values of tensors in this model, as where several maps are attended to."""
    return any(type(module).__name__ == 'MultiScaleDeformableAttention' for module in model.modules())


@contextmanager
def _counted(macs: Counter) -> Iterator[None]:
    with OperatorCounter() as counter:
        yield
    macs.update(counter.macs)


@contextmanager
def _uncounted(part: str) -> Iterator[None]:
    with OperatorCounter():
        yield


def _layer_macs(layer: ParC2d, shape: torch.Size, backend: str) -> int:
    before, layer.backend = layer.backend, backend
    x, macs = torch.empty(shape), Counter()
    for counted in (_uncounted('once for the kernel'), _counted(macs)):
        with counted:
            layer(x)
    layer.backend = before
    return sum(macs.values())
