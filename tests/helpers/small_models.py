"""Small models of each task."""
import torch
from families import CONVNEXT
from mmengine.config import Config
from repository import ROOT
from torch import nn

from plugconv_mm.analysis import build_model


def small_model(kind: str) -> nn.Module:
    """A small classifier, segmentor or detector, from the configs of the digits."""
    torch.manual_seed(0)
    backbone = dict(type='plugconv_mm.ParCConvNeXt', arch=CONVNEXT, parc_blocks=(0, 0, 1, 0))
    channels = CONVNEXT['channels']
    if kind == 'classifier':
        cfg = Config.fromfile(ROOT / 'configs/_base_/models/classifier.py')
        cfg.default_scope = 'mmpretrain'
        cfg.model.backbone.update(backbone)
        cfg.model.head.update(num_classes=5, in_channels=channels[-1])
        cfg.model.data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)
    elif kind == 'segmentor':
        cfg = Config.fromfile(ROOT / 'configs/digits/upernet_parc-resnet50-thin_digits.py')
        cfg.default_scope = 'mmseg'
        cfg.model.decode_head.update(channels=8, in_channels=channels, num_classes=3,
                                     loss_decode=dict(type='CrossEntropyLoss'))
    else:
        cfg = Config.fromfile(ROOT / 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py')
        cfg.default_scope = 'mmdet'
        cfg.model.neck.in_channels = channels
    cfg.model.backbone = backbone
    for node in (cfg.model, cfg.model.get('decode_head', {})):
        node.pop('norm_cfg', None)
    return build_model(cfg).eval()
