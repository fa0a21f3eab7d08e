"""Whole segmentors of CVNets, on which ParC-Net was published, under the names of mmseg's EncoderDecoder."""
import re

import torch
from torch import Tensor

from plugconv_mm.checkpoint.families import recognise
from plugconv_mm.errors import CheckpointError

# Names in the head of a published DeepLabV3, and those of PointwiseASPPHead.
_HEAD = (
    (r'seg_head\.aspp\.aspp_layer\.convs\.([0-3])\.block\.(.+)', r'decode_head.aspp_modules.\1.\2'),
    (r'seg_head\.aspp\.aspp_layer\.convs\.4\.aspp_pool\.conv_1x1\.block\.(.+)', r'decode_head.image_pool.1.\1'),
    (r'seg_head\.aspp\.aspp_layer\.project\.block\.(.+)', r'decode_head.bottleneck.\1'),
    (r'seg_head\.classifier\.classifier\.block\.conv\.(.+)', r'decode_head.conv_seg.\1'),
)
_PROJECTION = 'decode_head.bottleneck.conv.weight'
_ENCODER, _DETECTOR = 'encoder.', ('extra_layers.', 'ssd_heads.')


def with_our_parts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a published ParC-Net with a head the parts of mmseg's segmentors.

    Args:
        state: A state dict.

    Returns:
        The encoder, with names as published, under ``backbone.``, and the head converted under ``decode_head.``;
        any other state dict as it is.

    Raises:
        CheckpointError: If the head has no counterpart here: any but that of DeepLabV3, and all of the detector.
    """
    encoder = [key.removeprefix(_ENCODER) for key in state if key.startswith(_ENCODER)]
    family = recognise(encoder)
    if family is None or family.name != 'ParC-Net':
        return state
    alone = (f'Its encoder is converted when it is alone: leave out what is not under {_ENCODER!r} of the state '
             'dict')
    boxes = [key for key in state if key.startswith(_DETECTOR)]
    if boxes:
        raise CheckpointError(
            f"this is ParC-Net's published SSD detector. Its layers behind the encoder ({len(boxes)} tensors under "
            f"{' and '.join(map(repr, _DETECTOR))}) are others than those of mmdet's SSDNeck and SSDHead, which have "
            f'no place for them. {alone}')
    ours = {}
    for key, value in state.items():
        if key.startswith(_ENCODER):
            ours[f'backbone.{key.removeprefix(_ENCODER)}'] = value
            continue
        name = next((match.expand(name) for pattern, name in _HEAD if (match := re.fullmatch(pattern, key))), None)
        if name is None:
            raise CheckpointError(f'{key!r} is unknown in a ParC-Net with the head of DeepLabV3, the only head of '
                                  f'segmentors that is converted. {alone}')
        ours[name.replace('.norm.', '.bn.')] = value
    if _PROJECTION in ours:  # pooled features are the last of five in the published pyramid, in mmseg's the first
        ours[_PROJECTION] = torch.roll(ours[_PROJECTION], ours[_PROJECTION].shape[1] // 5, dims=1)
    return ours
