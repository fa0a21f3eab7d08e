"""What a user of a file has to know, inside the file."""
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from plugconv_mm.export.pixels import padding_value, swaps_channels
from plugconv_mm.export.tasks import ExportedPart


def file_metadata(model: nn.Module, part: ExportedPart, shape: tuple[int, int], uint8: bool,
                  others: Mapping[str, object]) -> dict[str, str]:
    """The metadata of a file, each entry as JSON.

    Returns:
        ``size``, height and width of images, ``any_size``, whether others may come, and ``layout``, their axes;
        ``task`` of a whole model, and what its part tells; ``order`` of the channels; ``mean`` and ``std`` in this
        order, those by which images are to be normalised; ``pad``, the pixel, BGR, that smaller images are filled up
        with; and the others, as ``mask_stride``, the side in pixels of a cell of masks of the whole image.
    """
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    entries: dict[str, object] = dict(size=list(shape), layout='NHWC' if uint8 else 'NCHW')
    if part.task:
        entries['task'] = part.task
    if preprocessor is not None:
        swaps = swaps_channels(preprocessor)
        statistics = {key: getattr(preprocessor, key).flatten().tolist() for key in ('mean', 'std')
                      if getattr(preprocessor, key, None) is not None}
        entries['pad'] = _pixel_of_padding(preprocessor, statistics, swaps)
        entries['order'] = 'RGB' if swaps and not uint8 else 'BGR'
        if not uint8:
            entries.update(statistics)
    return {key: json.dumps(value) for key, value in {**entries, **part.metadata, **others}.items()}


def _pixel_of_padding(preprocessor: Any, statistics: Mapping[str, list[float]], swaps: bool) -> list[int]:
    """The pixel that a preprocessor, which pads what is normalised, makes its padding of."""
    value = padding_value(preprocessor)
    if not statistics:
        return [round(value)] * 3
    pixel = [round(mean + value * std) for mean, std in zip(statistics['mean'], statistics['std'], strict=True)]
    return pixel[::-1] if swaps else pixel
