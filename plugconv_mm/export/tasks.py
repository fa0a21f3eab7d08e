"""The part of a model that is exported, by its task."""
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.detectors import detector_of
from plugconv_mm.export.tracing import one_for_each, traceable
from plugconv_mm.ops import KWConv2d


@dataclass(frozen=True)
class ExportedPart:
    """The part of a model that goes into the file.

    Attributes:
        description: The part as a phrase for people.
        call: The function from the model and images (N, C, H, W) to the outputs: a tensor, or a sequence of them.
        output_name: Name of the outputs: 'logits', 'feature' or 'output'; or the name of each of them.
        modules: Names of the model's children that run in it; all of them if empty.
        detects: Whether the outputs are detections.
    """
    description: str
    call: Callable[[nn.Module, Tensor], object]
    output_name: str | tuple[str, ...]
    modules: tuple[str, ...] = ()
    detects: bool = False

    def output_names(self, number: int) -> list[str]:
        """Names of as many outputs."""
        if isinstance(self.output_name, tuple):
            return list(self.output_name)
        one = number == 1 and self.output_name == 'logits'
        return [self.output_name] if one else [f'{self.output_name}_{i}' for i in range(number)]


class ExportedModule(nn.Module):
    """A module that maps images (N, C, H, W) to the outputs of a part of a model, as a tuple of tensors.

    Args:
        model: The whole model.
        part: The part of it that runs.
    """

    def __init__(self, model: nn.Module, part: ExportedPart) -> None:
        super().__init__()
        self.model, self.call = model, part.call

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with traceable():
            outputs = self.call(self.model, x)
        return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs, )


def part_of(model: nn.Module, features: bool = False) -> ExportedPart:
    """Choose the part of a model that is exported.

    Args:
        model: The model.
        features: Whether backbone and neck of a detector are exported, without its heads.

    Raises:
        ExportError: The model is of a task whose models are not exported, a detector without a backbone, or one with a
            head that is not exported.
    """
    if _is_a(model, 'mmpretrain.models.classifiers', 'ImageClassifier'):
        if not model.with_head:
            return ExportedPart('the backbone of a classifier without a head', lambda m, x: m.extract_feat(x),
                                'feature', ('backbone', 'neck'))
        return ExportedPart('the whole classifier, to logits', lambda m, x: m(x, mode='tensor'), 'logits')
    if _is_a(model, 'mmseg.models.segmentors', 'EncoderDecoder'):
        return ExportedPart('the whole segmentor, to logits of the size of the image',
                            lambda m, x: m.encode_decode(x, one_for_each(dict(img_shape=tuple(x.shape[2:])), x)),
                            'logits')
    if _is_a(model, 'mmdet.models.detectors', 'BaseDetector'):
        if not hasattr(model, 'backbone'):
            raise ExportError(f'{type(model).__name__} has no backbone, the part of a detector that is exported')
        if not features:
            detector = detector_of(model)
            return ExportedPart(f'the whole detector, to {", ".join(detector.names)}', detector.detect, detector.names,
                                detects=True)
        neck = ' and neck' if model.with_neck else ''
        return ExportedPart(f'backbone{neck} of the detector, without its heads', lambda m, x: m.extract_feat(x),
                            'feature', ('backbone', 'neck'))
    if hasattr(model, 'data_preprocessor'):
        raise ExportError(f'{type(model).__name__} is neither a classifier of mmpretrain, nor an EncoderDecoder of '
                          'mmseg, nor a detector of mmdet: only these are exported')
    return ExportedPart(f'the whole {type(model).__name__}', lambda m, x: m(x), 'output')


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


def metadata(model: nn.Module, classes: tuple[str, ...] | None) -> dict[str, str]:
    """The normalisation of images and the names of the classes, each as JSON.

    Returns:
        ``mean``, ``std`` and ``order`` of the channels, those that the model's preprocessor has, and ``classes``.
    """
    preprocessor, entries = getattr(model, 'data_preprocessor', None), {}
    for key in ('mean', 'std'):
        value = getattr(preprocessor, key, None)
        if value is not None:
            entries[key] = value.flatten().tolist()
    if preprocessor is not None:
        # mmpretrain calls it to_rgb, the others _channel_conversion
        swapped = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        entries['order'] = 'RGB' if swapped else 'BGR'
    if classes:
        entries['classes'] = list(classes)
    return {key: json.dumps(value) for key, value in entries.items()}
