"""Features of regions of interest, for a number of regions that does not depend on what is in the images."""
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from plugconv_mm.errors import ExportError


def check_extractor(extractor: nn.Module) -> None:
    """Check that the features of regions are those which are exported.

    Raises:
        ExportError: They are others.
    """
    layers = getattr(extractor, 'roi_layers', ())
    if type(extractor).__name__ != 'SingleRoIExtractor' or any(
            type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg' for layer in layers):
        raise ExportError(f'the regions of this detector get their features from {type(extractor).__name__} with '
                          f'{type(layers[0]).__name__ if layers else "other layers"}: SingleRoIExtractor with RoIAlign '
                          'and the mean of its samples is what is exported')


def features_of_regions(extractor: Any, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Do what ``SingleRoIExtractor`` of mmdet does, every level for all regions.

    A region is empty in all levels but its own, so that it costs one sample a bin there.

    Args:
        extractor: The module.
        feats: Maps of all levels.
        rois: Regions (R, 5), the number of the image and a box.

    Returns:
        Features (R, C, h, w).
    """
    levels = extractor.map_roi_levels(rois, len(feats)) if len(feats) > 1 else torch.zeros_like(rois[:, 0])
    total: Any = 0
    for number, (layer, feat) in enumerate(zip(extractor.roi_layers, feats, strict=True)):
        of_level = (levels == number).to(rois.dtype)[:, None]
        boxes = torch.cat((rois[:, :1], rois[:, 1:] * of_level), 1)
        out = roi_align(feat, boxes, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
        total = total + out * of_level[..., None, None]
    return total


def regions_of(boxes: Tensor) -> Tensor:
    """Boxes (B, K, 4) as regions (B · K, 5)."""
    number = torch.arange(boxes.shape[0], device=boxes.device).to(boxes.dtype)  # ONNX keeps a range of integers one
    return torch.cat((number[:, None, None].expand(-1, boxes.shape[1], 1), boxes), 2).flatten(0, 1)
