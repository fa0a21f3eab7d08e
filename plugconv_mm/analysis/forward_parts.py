"""The forward pass of detectors, segmentors and classifiers, part by part.

It runs all layers that predict, and leaves out what depends on the predictions themselves: decoding, NMS and RoIAlign.
Two-stage detectors take 1000 proposals and 100 boxes with masks, as published figures do.
"""
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugconv_mm.errors import UnsupportedConfigError

PARTS = ('backbone', 'neck', 'head')
NUM_PROPOSALS, NUM_MASKS = 1000, 100


def run_parts(model: nn.Module, image: Tensor, part: Callable[[str], AbstractContextManager]) -> None:
    """Run the forward pass of prediction, without decoding, NMS and RoIAlign.

    Args:
        model: As in :func:`~plugconv_mm.analysis.measure`, but on any device.
        image: (N, C, H, W), on the device of the model.
        part: ``part(name)`` is entered around each part that the model has, one of ``PARTS``.

    Raises:
        UnsupportedConfigError: A kind of head that is not known here.
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
        raise UnsupportedConfigError(
            f'{type(model).__name__} has none of the heads whose cost is known here: it should be a detector of mmdet '
            'with a bbox_head, a roi_head or a mask_head, a segmentor of mmseg or a classifier of mmpretrain')
    if 'decode_head' in heads:
        model.decode_head.predict(feats, [dict(img_shape=tuple(image.shape[2:]))] * len(image), model.test_cfg)
    if 'head' in heads:
        model.head(feats)
    if 'semantic_head' in heads:
        model.semantic_head(feats)
    if 'roi_head' in heads:
        _run_roi_head(model, feats)
    if 'bbox_head' in heads and hasattr(model, 'forward_transformer'):  # DETR and its descendants
        model.bbox_head(**model.forward_transformer(feats, _samples(image)))
    elif 'bbox_head' in heads:
        model.bbox_head(feats)
    if 'mask_head' in heads:
        _run_mask_head(model, feats)


def _samples(image: Tensor) -> list:
    """Samples of mmdet of images without padding."""
    from mmdet.structures import DetDataSample
    size = tuple(image.shape[2:])
    return [DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=size)) for _ in image]


def _run_roi_head(model: nn.Module, feats: tuple[Tensor, ...]) -> None:
    from mmdet.models.roi_heads import CascadeRoIHead, SparseRoIHead, StandardRoIHead
    head = model.roi_head
    kind = next((known for known in (SparseRoIHead, CascadeRoIHead, StandardRoIHead) if isinstance(head, known)), None)
    if kind is None:
        raise UnsupportedConfigError(f'what {type(head).__name__} costs is not known here, only standard, cascade and '
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
    """Run the mask head of a detector that predicts a kernel for each mask, SOLOv2 or CondInst."""
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
        raise UnsupportedConfigError(f'what {type(head).__name__} costs is not known here, only the heads of SOLOv2 '
                                     'and CondInst')
