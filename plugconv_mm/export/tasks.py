"""The part of a model that is exported, by its task."""
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.deformable import plain_deformable_convolutions
from plugconv_mm.export.detectors import LIMIT, detector_of
from plugconv_mm.export.pasting import paste
from plugconv_mm.export.pixels import Pixels, padded_shape
from plugconv_mm.export.tracing import one_for_each, traceable
from plugconv_mm.ops import KWConv2d


@dataclass(frozen=True)
class ExportedPart:
    """The part of a model that goes into the file.

    Attributes:
        description: The part as a phrase for people.
        call: The function from the model, images (N, C, H, W) and their height and width before they were padded to
            the outputs: a tensor, or a sequence of them.
        output_name: Names of the outputs; or one, which is numbered.
        task: 'classification', 'segmentation' or 'detection', or none of them.
        modules: Names of the model's children that run in it; all of them if empty.
        outputs: What is compared with PyTorch: 'values', 'labels' or 'detections'.
        metadata: What a user of the outputs has to know.
    """
    description: str
    call: Callable[[Any, Tensor, tuple[int, int]], object]
    output_name: str | tuple[str, ...]
    task: str = ''
    modules: tuple[str, ...] = ()
    outputs: str = 'values'
    metadata: Mapping[str, object] = field(default_factory=dict)

    def output_names(self, number: int) -> list[str]:
        """Names of as many outputs."""
        if isinstance(self.output_name, tuple):
            return list(self.output_name)
        return [f'{self.output_name}_{i}' for i in range(number)]


class ExportedModule(nn.Module):
    """A module that maps images to the outputs of a part of a model, as a tuple of tensors.

    Args:
        model: The whole model.
        part: The part of it that runs.
        uint8: Whether images are pixels (N, H, W, 3), BGR, of uint8, and not normalised ones (N, C, H, W).
    """

    def __init__(self, model: nn.Module, part: ExportedPart, uint8: bool = False) -> None:
        super().__init__()
        self.model, self.call = model, part.call
        self.pixels = Pixels(model) if uint8 else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        shape = tuple(x.shape[2:])
        if self.pixels is not None:
            shape = tuple(x.shape[1:3])
            x = self.pixels(x, padded_shape(self.model, shape))
        with traceable(), plain_deformable_convolutions():
            outputs = self.call(self.model, x, shape)
        return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs, )


def part_of(model: Any, features: bool = False, raw: bool = False, paste_masks: bool = False) -> ExportedPart:
    """Choose the part of a model that is exported.

    Args:
        model: The model.
        features: Whether backbone and neck of a detector are exported, without its heads.
        raw: Whether the last step is left out: a detector's suppression, or what follows the logits.
        paste_masks: Whether masks of boxes are put into the image.

    Raises:
        ExportError: The model is of a task whose models are not exported, a detector without a backbone, or one with a
            head that is not exported; or it has no such step, or no masks.
    """
    is_detector = _is_a(model, 'mmdet.models.detectors', 'BaseDetector')
    for asked, option in ((features, 'features'), (paste_masks, 'paste_masks')):
        if asked and not is_detector:
            raise ExportError(f'{option} is an option of detectors, and {type(model).__name__} is none')
    if _is_a(model, 'mmpretrain.models.classifiers', 'ImageClassifier'):
        return _part_of_classifier(model, raw)
    if _is_a(model, 'mmseg.models.segmentors', 'EncoderDecoder'):
        if raw:
            return ExportedPart('the whole segmentor, to logits of the size of the image', _logits, ('logits', ),
                                'segmentation')
        return ExportedPart('the whole segmentor, to labels of pixels', _labels, ('labels', ), 'segmentation',
                            outputs='labels')
    if is_detector:
        return _part_of_detector(model, features, raw, paste_masks)
    if hasattr(model, 'data_preprocessor'):
        raise ExportError(f'{type(model).__name__} is neither a classifier of mmpretrain, nor an EncoderDecoder of '
                          'mmseg, nor a detector of mmdet: only these are exported')
    if raw:
        raise ExportError(f'raw is an option of whole models, and {type(model).__name__} has no last step to leave out')
    return ExportedPart(f'the whole {type(model).__name__}', lambda m, x, _: m(x), 'output')


def _part_of_classifier(model: Any, raw: bool) -> ExportedPart:
    if not model.with_head:
        return ExportedPart('the backbone of a classifier without a head', lambda m, x, _: m.extract_feat(x), 'feature',
                            modules=('backbone', 'neck'))
    if raw:
        return ExportedPart('the whole classifier, to logits', lambda m, x, _: m(x, mode='tensor'), ('logits', ),
                            'classification')
    many = any(kind.__name__ == 'MultiLabelClsHead' for kind in type(model.head).__mro__)
    return ExportedPart('the whole classifier, to scores', lambda m, x, _: (
        m(x, mode='tensor').sigmoid() if many else m(x, mode='tensor').softmax(1)), ('scores', ), 'classification')


def _part_of_detector(model: Any, features: bool, raw: bool, paste_masks: bool) -> ExportedPart:
    if not hasattr(model, 'backbone'):
        raise ExportError(f'{type(model).__name__} has no backbone, the part of a detector that is exported')
    if features:
        neck = ' and neck' if model.with_neck else ''
        return ExportedPart(f'backbone{neck} of the detector, without its heads', lambda m, x, _: m.extract_feat(x),
                            'feature', modules=('backbone', 'neck'))
    detector = detector_of(model, raw)
    if paste_masks and not ('masks' in detector.names and detector.masks == 'box'):
        raise ExportError(f'paste_masks is an option of detectors with masks of boxes, and {type(model).__name__} has '
                          'none')
    about: dict[str, object] = {}
    if 'masks' in detector.names:
        about['masks'] = 'image' if paste_masks else detector.masks
    if raw:
        cfg = model.bbox_head.test_cfg
        about['suppression'] = dict(iou_threshold=cfg.nms.iou_threshold, limit=cfg.get('max_per_img', LIMIT))
    threshold = model.roi_head.test_cfg['mask_thr_binary'] if paste_masks else 0.
    return ExportedPart(f'the whole detector, to {", ".join(detector.names)}', partial(
        _detections, detect=detector.detect, paste_masks=paste_masks, threshold=threshold), detector.names, 'detection',
        outputs='detections', metadata=about)


def _logits(model: Any, images: Tensor, shape: tuple[int, int]) -> Tensor:
    logits = model.encode_decode(images, one_for_each(dict(img_shape=tuple(images.shape[2:])), images))
    return logits[..., :shape[0], :shape[1]]


def _labels(model: Any, images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Labels (B, H, W)."""
    return labels_of(model, _logits(model, images, shape))


def labels_of(model: Any, logits: Tensor) -> Tensor:
    """Labels (B, H, W) of logits (B, C, H, W) of a segmentor, as mmseg chooses them."""
    if logits.shape[1] == 1:
        return (logits.sigmoid() > model.decode_head.threshold)[:, 0].to(torch.int64)
    return logits.argmax(1)


def _detections(model: Any, images: Tensor, shape: tuple[int, int], detect: Callable, paste_masks: bool,
                threshold: float) -> tuple[Tensor, ...]:
    """Detections inside the image without its padding."""
    dets, *others = detect(model, images)
    height, width = shape
    if shape != tuple(images.shape[2:]):
        most = torch.tensor([width, height, width, height, 1], dtype=dets.dtype)
        dets = torch.minimum(dets, most)
    if paste_masks:
        others[1] = paste(others[1], dets[..., :4], shape, threshold)
    return dets, *others


def _is_a(model: nn.Module, module: str, name: str) -> bool:
    """Whether the model is of a class of a package that may not be installed."""
    return module in sys.modules and isinstance(model, getattr(sys.modules[module], name))


def input_channels(model: nn.Module) -> int:
    """The number of channels of the images that a model takes."""
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    if mean is not None:
        return mean.numel()
    if hasattr(model, 'data_preprocessor'):  # the first layer may see several pixels as one, as YOLOX's does
        return 3
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, KWConv2d))), None)
    return getattr(first, 'in_channels', 3)
