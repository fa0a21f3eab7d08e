"""Detectors whose masks come from kernels that the head predicts for each box: RTMDet-Ins and CondInst.

Masks are probabilities (B, K, h, w) over the whole image, as large as the head computes them: h and w are 1/8 of the
image's sides in RTMDet-Ins, and 1/4 in CondInst.
"""
from typing import Any

import torch
from torch import Tensor

from plugconv_mm.export.candidates import below, choose_candidates, of_all_images
from plugconv_mm.export.suppression import detections

_RTMDET_RANGE = 8  # strides that are 1 in RTMDet's distances from a box's prior


def rtmdet_ins(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    """Detect as mmdet's RTMDet with ``RTMDetInsHead`` (Lyu et al., 2022): boxes with scores, labels and masks."""
    head = model.bbox_head
    cls_scores, bbox_preds, kernels, mask_feat = head(model.extract_feat(images))
    priors = head.prior_generator.grid_priors([map.shape[-2:] for map in cls_scores], dtype=images.dtype,
                                              device=images.device, with_stride=True)
    candidates = choose_candidates(
        head, images.shape[0], '_bbox_mask_post_process', ('kernels', 'priors'), cls_score_list=below(cls_scores),
        bbox_pred_list=below(bbox_preds), kernel_pred_list=below(kernels), mask_feat=None,
        score_factor_list=[None] * len(priors), mlvl_priors=of_all_images(priors, images.shape[0]),
        img_meta=dict(img_shape=tuple(images.shape[2:])))
    cfg = head.test_cfg
    dets, labels, kernels, priors = detections(*candidates[:3], cfg.nms, cfg.max_per_img, *candidates[3:])
    locations = head.prior_generator.single_level_grid_priors(mask_feat.shape[2:], level_idx=0, device=images.device)
    masks = _masks(head, kernels, priors[..., :2], priors[..., 2] * _RTMDET_RANGE, locations, mask_feat)
    return dets, labels, masks.sigmoid()


def condinst(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    """Detect as mmdet's CondInst (Tian et al., ECCV 2020): boxes with scores, labels and masks."""
    from mmdet.models.utils import aligned_bilinear
    head, mask_head = model.bbox_head, model.mask_head
    feats = model.extract_feat(images)
    cls_scores, bbox_preds, centernesses, params = head(feats)
    priors = head.prior_generator.grid_priors([map.shape[-2:] for map in cls_scores], dtype=images.dtype,
                                              device=images.device, with_stride=True)
    priors = of_all_images(priors, images.shape[0])
    candidates = choose_candidates(
        head, images.shape[0], '_bbox_post_process', ('param_preds', 'points', 'strides'),
        cls_score_list=below(cls_scores), bbox_pred_list=below(bbox_preds), score_factor_list=below(centernesses),
        param_pred_list=below(params), mlvl_points=[prior[:, :2] for prior in priors],
        mlvl_strides=[prior[:, 2] for prior in priors], img_meta=dict(img_shape=tuple(images.shape[2:])))
    cfg = head.test_cfg
    dets, labels, params, points, strides = detections(*candidates[:3], cfg.nms, cfg.max_per_img, *candidates[3:])
    mask_feat = mask_head.mask_feature_head(feats)
    locations = mask_head.prior_generator.single_level_grid_priors(mask_feat.shape[2:], 0, device=images.device)
    masks = _masks(mask_head, params, points, strides * mask_head.size_of_interest, locations, mask_feat)
    return dets, labels, aligned_bilinear(masks, mask_head.mask_feat_stride // mask_head.mask_out_stride).sigmoid()


def _masks(head: Any, params: Tensor, points: Tensor, ranges: Tensor, locations: Tensor, feat: Tensor) -> Tensor:
    """Run the layers of each box over the maps.

    Products of matrices, as the groups of a convolution in ONNX are a number that the file holds, and here they would
    be as many as there are boxes in all images.

    Args:
        head: What knows how many weights and biases each layer has.
        params: Weights of all layers, then biases (B, K, P).
        points: Where each box was predicted (B, K, 2), in pixels.
        ranges: Distances from there that are 1 (B, K), in pixels.
        locations: Where the maps are sampled (h · w, 2), in pixels.
        feat: The maps (B, C, h, w).

    Returns:
        Logits (B, K, h, w).
    """
    parts, layers = params.split([*head.weight_nums, *head.bias_nums], dim=2), len(head.bias_nums)
    # A place that no box fills has a range of 0.
    x = (points[..., None] - locations.t()) / ranges.clamp(min=1)[..., None, None]
    x = torch.cat((x, feat.flatten(2)[:, None].expand(-1, params.shape[1], -1, -1)), 2)
    for layer, width in enumerate(head.bias_nums):
        x = parts[layer].unflatten(2, (width, head.weight_nums[layer] // width)) @ x + parts[layers + layer][..., None]
        x = x.relu() if layer < layers - 1 else x
    return x.view(*params.shape[:2], *feat.shape[2:])
