"""Features of regions of interest, for a number of regions that does not depend on what is in the images."""
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from plugconv_mm.errors import ExportError
from plugconv_mm.export.suppression import only


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

    In all levels but its own a region is a cell of the map, so that it costs one sample a bin there; and so is one
    without an area, of whose samples runtimes have different notions.

    Args:
        extractor: The module.
        feats: Maps of all levels.
        rois: Regions (R, 5), the number of the image and a box.

    Returns:
        Features (R, C, h, w).
    """
    levels = extractor.map_roi_levels(rois, len(feats)) if len(feats) > 1 else torch.zeros_like(rois[:, 0])
    total: Any = 0
    has_area = (rois[:, 3:] > rois[:, 1:3]).all(1)
    for number, (layer, feat) in enumerate(zip(extractor.roi_layers, feats, strict=True)):
        of_level = (levels == number) & has_area
        cell = torch.tensor([0, 0, 1, 1], dtype=rois.dtype, device=rois.device) / layer.spatial_scale
        boxes = torch.where(of_level[:, None], rois[:, 1:], cell)
        out = roi_align(feat, torch.cat((rois[:, :1], boxes), 1), layer.output_size, layer.spatial_scale,
                        layer.sampling_ratio, layer.aligned)
        total = total + only(of_level[:, None, None, None], out, 0)
    return total


def regions_of(boxes: Tensor) -> Tensor:
    """Boxes (B, K, 4) as regions (B · K, 5)."""
    number = torch.arange(boxes.shape[0], device=boxes.device).to(boxes.dtype)  # ONNX keeps a range of integers one
    return torch.cat((number[:, None, None].expand(-1, boxes.shape[1], 1), boxes), 2).flatten(0, 1)
