"""What the export of a model to any format begins with."""
import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.file_metadata import file_metadata
from plugconv_mm.export.pixels import padded_shape
from plugconv_mm.export.preconditions import check_model, check_shape
from plugconv_mm.export.tasks import ExportedModule, ExportedPart, input_channels, part_of
from plugconv_mm.plugging import merge

_LARGER = 64  # pixels more than exported, of a second size that is compared


@dataclass(frozen=True)
class Prepared:
    """A model that was checked, and what is needed to write and to compare it.

    Attributes:
        part: The part of the model that is exported.
        reference: The part as a module.
        deployed: The same in its deployment form, with the operators that are exported.
        images: A batch of two images or more.
        more: Further batches to compare: one image alone; and, where any size may come, images of another.
        expected: Outputs of the reference for the images.
        names: Of the outputs.
        variables: The dimensions of the images that may change, for ``torch.export``.
        metadata: What a user has to know, each entry as JSON.
    """
    part: ExportedPart
    reference: nn.Module
    deployed: nn.Module
    images: Tensor
    more: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]
    names: list[str]
    variables: dict[int, object]
    metadata: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple]:
        """Name and shape of each output; the first entry of a shape is 'batch'."""
        return {name: ('batch', *y.shape[1:]) for name, y in zip(self.names, self.expected, strict=True)}


def prepare(model: nn.Module, shape: tuple[int, int], classes: tuple[str, ...] | None = None,
            images: Tensor | None = None, features: bool = False, raw: bool = False, uint8: bool = False,
            paste_masks: bool = False, any_size: bool = False,
            metadata: Mapping[str, object] | None = None) -> Prepared:
    """Check a model and run it once.

    Args:
        model: As of :func:`plugconv_mm.export.export_onnx`, and so are the others.
        shape: Height and width of the images.
        classes: Names of classes, in the place of the model's.
        images: Images on which formats are compared, or random ones if None.
        features: Whether a detector leaves without its heads.
        raw: Whether the last step is left out.
        uint8: Whether images are pixels.
        paste_masks: Whether masks are those of pixels.
        any_size: Whether heights and widths may change.
        metadata: Further entries.

    Raises:
        ExportError: The model, or its part, or the size cannot be exported.
    """
    part = part_of(model, features, raw, paste_masks)
    check_shape(model, shape, uint8)
    check_model(model, part)
    model = copy.deepcopy(model).eval()
    reference = ExportedModule(model, part, uint8)
    images = _images(model, shape, uint8, images)
    try:
        with torch.no_grad():
            expected = reference(images)
    except Exception as error:
        raise ExportError(f'{type(model).__name__} does not take images of {shape[0]}x{shape[1]}: {error}') from error
    if not all(isinstance(y, Tensor) for y in expected):
        raise ExportError(f'{type(model).__name__} gives {", ".join(type(y).__name__ for y in expected)} and not '
                          'tensors alone, which is all that a graph can give')
    deployed = ExportedModule(copy.deepcopy(model), part, uint8)
    merge(deployed)
    meta, about = getattr(model, 'dataset_meta', None) or {}, {}
    if part.metadata.get('masks') == 'image':
        covered = shape if paste_masks else padded_shape(model, shape)
        about['mask_stride'] = covered[0] / expected[2].shape[2]
    entries = {**{key: meta[key] for key in ('classes', 'palette') if meta.get(key)}, **about, **(metadata or {}),
               **(dict(classes=classes) if classes else {}), 'any_size': any_size}
    sides = ((1, 2) if uint8 else (2, 3)) if any_size else ()
    return Prepared(
        part, reference, deployed, images, (images[:1], *([_larger(images, sides)] if any_size else ())), expected,
        part.output_names(len(expected)),
        {0: torch.export.Dim('batch'), **{side: torch.export.Dim.DYNAMIC for side in sides}},
        file_metadata(model, part, shape, uint8, entries))


def _images(model: nn.Module, shape: tuple[int, int], uint8: bool, images: Tensor | None) -> Tensor:
    """The images that formats are compared on: random ones, or those given, which are checked."""
    random = torch.Generator().manual_seed(0)
    if uint8:
        size, dtype = (*shape, 3), torch.uint8
        drawn = torch.randint(256, (3, *size), dtype=dtype, generator=random)
    else:
        size, dtype = (input_channels(model), *shape), torch.float32
        drawn = torch.randn(3, *size, generator=random)
    if images is None:
        return drawn
    if images.shape[1:] != size or len(images) < 2 or images.dtype != dtype:
        raise ExportError(f'at least two images of {"x".join(map(str, size))} in {dtype} are compared, got '
                          f'{tuple(images.shape)} in {images.dtype}')
    return images


def _larger(images: Tensor, sides: tuple[int, ...]) -> Tensor:
    """The images with their first rows and columns a second time behind their last."""
    for side in sides:
        images = torch.cat((images, images.narrow(side, 0, min(_LARGER, images.shape[side]))), side)
    return images
