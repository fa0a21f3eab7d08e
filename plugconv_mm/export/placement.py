"""How the test of a config brings images to one size, as entries of an exported file's metadata."""
from mmengine.config import Config

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_parts import first_test_dataset
from plugconv_mm.runtime.config_tree import type_name


def placement_of(cfg: Config) -> dict[str, object]:
    """Find how images are brought to the size of a model.

    Args:
        cfg: The whole config.

    Returns:
        ``fit``: 'contain', where images keep their ratio and are filled up at the bottom and on the right, 'stretch',
        or 'crop', where the centre is cut out of an image, and ``edge``, the part that the size has of the shorter edge
        of the whole image; ``pad``, the pixel that images are filled up with, BGR, where a step of the test tells.
    """
    try:
        _, steps = first_test_dataset(cfg)
    except ConfigError:  # without a test, images are placed as most are
        return dict(fit='contain')
    found: dict[str, object] = dict(fit='contain')
    edge = None
    for step in steps:
        kind = type_name(step.get('type'))
        if kind == 'Resize' and not step.get('keep_ratio'):
            found['fit'] = 'stretch'
        elif kind == 'ResizeEdge':
            edge = step['scale']
        elif kind == 'CenterCrop':
            crop = step['crop_size']
            crop = crop if isinstance(crop, int) else min(crop)
            found.update(fit='crop', edge=crop / edge if edge else 1.)
        elif kind == 'Pad':
            value = step.get('pad_val', 0)
            value = value.get('img', 0) if isinstance(value, dict) else value
            found['pad'] = [value] * 3 if isinstance(value, (int, float)) else list(value)
    return found
