"""Parameters and multiply-adds of detectors, segmentors and classifiers, by part and by kind of operator.

Nothing is computed: the model runs on tensors that have shapes and no values, so a big image costs no more time than
a small one, and no memory.
"""
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from plugconv_mm.analysis.operators import OperatorCounter
from plugconv_mm.ops import ParC2d
from plugconv_mm.runtime.build import build_model as build_model  # a name of plugconv_mm.analysis as well

PARTS = ('backbone', 'neck', 'head')
NUM_PROPOSALS, NUM_MASKS = 1000, 100


@dataclass
class ModelCost:
    """What :func:`measure` found.

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
        return sum(self.params.values())

    def total_macs(self, parc_backend: str | None = None) -> int:
        """Of the whole model, with all ParC layers in one form if ``parc_backend`` says so."""
        total = sum(sum(counter.values()) for counter in self.macs.values())
        return total if parc_backend is None else total - self.parc_counted + self.parc[parc_backend]

    def table(self) -> str:
        """For people to read."""
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
    def _millions(values) -> list[str]:
        values = list(values)
        return [f'{value / 1e6:.2f}' for value in (*values, sum(values))]

    @staticmethod
    def _billions(values) -> list[str]:
        values = list(values)
        return [f'{value / 1e9:.3f}' for value in (*values, sum(values))]


def padded_shape(model: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """The size to which the model's data preprocessor pads an image of this height and width."""
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    return tuple(-(-side // divisor) * divisor for side in shape)


def measure(model: nn.Module, shape: tuple[int, int], in_channels: int = 3) -> ModelCost:
    """Parameters and multiply-adds of one image in evaluation mode.

    Counted is what the network computes: of a two-stage detector the RPN, the box heads on 1000 proposals and the mask
    heads on 100 boxes, as for published figures, and for detectors that predict a kernel for each mask 100 such masks;
    of a segmentor the main head and the resize to the image. Not counted are what sorts and crops (decoding, NMS,
    RoIAlign), what only training uses (auxiliary heads), and what is derived once from weights (stretched kernels).

    Args:
        model: A detector of mmdet, a segmentor of mmseg, a classifier of mmpretrain, or a backbone, on the
            CPU. It is not changed.
        shape: Height and width of the image, in pixels.
        in_channels: Channels of the image.

    Raises:
        NotImplementedError: A kind of head that is not known here.
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

    fake = FakeTensorMode()
    with FakeCopyMode(fake):
        model = copy.deepcopy(model)
    model.eval()  # of mmpretrain's backbones it returns None
    layers = [module for module in model.modules() if isinstance(module, ParC2d)]
    calls = []
    for layer in layers:
        layer.backend = 'fft' if layer.backend == 'auto' else layer.backend
    with torch.no_grad(), fake:
        image = torch.empty(1, in_channels, *shape)
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


def run_parts(model: nn.Module, image: Tensor, part: Callable[[str], AbstractContextManager]) -> None:
    """The forward pass of prediction, without what sorts and crops.

    Args:
        model: As in :func:`measure`, but on any device.
        image: (N, C, H, W), on the device of the model.
        part: ``part(name)`` is entered around each part that the model has, one of ``PARTS``.

    Raises:
        NotImplementedError: A kind of head that is not known here.
    """
    if not hasattr(model, 'backbone'):
        with part('backbone'):
            model(image)
        return
    with part('backbone'):
        feats = model.backbone(image)
    if getattr(model, 'neck', None) is not None:
        with part('neck'):
            feats = model.neck(feats)
    with part('head'), torch.device(image.device):
        _run_heads(model, feats, image)


def _run_heads(model: nn.Module, feats: tuple[Tensor, ...], image: Tensor) -> None:
    heads = {name for name in ('decode_head', 'semantic_head', 'rpn_head', 'roi_head', 'bbox_head', 'mask_head', 'head')
             if getattr(model, name, None) is not None}
    if not heads:
        raise NotImplementedError(f'{type(model).__name__} has none of the heads whose cost is known here: it should '
                                  'be a detector of mmdet with a bbox_head, a roi_head or a mask_head, a segmentor of '
                                  'mmseg or a classifier of mmpretrain')
    if 'decode_head' in heads:
        logits = model.decode_head(feats)
        F.interpolate(logits, size=image.shape[2:], mode='bilinear', align_corners=model.align_corners)
    if 'head' in heads:
        model.head(feats)
    if 'semantic_head' in heads:
        model.semantic_head(feats)
    if 'roi_head' in heads:
        _run_roi_head(model, feats)
    if 'bbox_head' in heads:
        model.bbox_head(feats)
    if 'mask_head' in heads:
        _run_mask_head(model, feats)


def _run_roi_head(model: nn.Module, feats: tuple[Tensor, ...]) -> None:
    from mmdet.models.roi_heads import CascadeRoIHead, SparseRoIHead, StandardRoIHead
    head = model.roi_head
    kind = next((known for known in (SparseRoIHead, CascadeRoIHead, StandardRoIHead) if isinstance(head, known)), None)
    if kind is None:
        raise NotImplementedError(f'what {type(head).__name__} costs is not known here, only standard, cascade and '
                                  'sparse RoI heads')

    batch = len(feats[0])

    def regions(extractor: nn.Module, number: int) -> Tensor:
        region = torch.rand(1, extractor.out_channels, *extractor.roi_layers[0].output_size)
        return region.expand(batch * number, -1, -1, -1)

    def stages(modules: nn.Module) -> list[nn.Module]:
        return list(modules) if isinstance(modules, nn.ModuleList) else [modules]

    if kind is not SparseRoIHead:
        model.rpn_head(feats)
    queries = torch.rand(batch, model.rpn_head.num_proposals, feats[0].shape[1]) if kind is SparseRoIHead else None
    for extractor, box_head in zip(stages(head.bbox_roi_extractor), stages(head.bbox_head), strict=True):
        if queries is None:
            box_head(regions(extractor, NUM_PROPOSALS))
        else:
            queries = box_head(regions(extractor, queries.shape[1]), queries)[2]
    if head.with_mask:
        for extractor, mask_head in zip(stages(head.mask_roi_extractor), stages(head.mask_head), strict=True):
            mask_head(regions(extractor, NUM_MASKS))


def _run_mask_head(model: nn.Module, feats: tuple[Tensor, ...]) -> None:
    """Of detectors whose masks come from kernels that are predicted: SOLOv2 and CondInst."""
    from mmdet.models.dense_heads import CondInstMaskHead, SOLOV2Head
    from mmengine.structures import InstanceData
    head = model.mask_head
    if isinstance(head, SOLOV2Head):
        kernels, _, masks = head(feats)
        size = head.dynamic_conv_size
        F.conv2d(masks, torch.rand(NUM_MASKS, masks.shape[1], size, size))
    elif isinstance(head, CondInstMaskHead):
        head(feats, [InstanceData(
            param_preds=torch.rand(NUM_MASKS, model.bbox_head.num_params), points=torch.rand(NUM_MASKS, 2),
            strides=torch.ones(NUM_MASKS)) for _ in feats[0]])
    else:
        raise NotImplementedError(f'what {type(head).__name__} costs is not known here, only the heads of SOLOv2 and '
                                  'CondInst')
