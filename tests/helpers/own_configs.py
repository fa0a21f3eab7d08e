"""Configs of this repository, one for each layout of data, as the tools load them."""
from pathlib import Path

from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = dict(
    coco='configs/hornet/cascade-mask-rcnn_hornet-tiny-7x7_fpn_ms-480-800-3x_coco.py',
    panoptic='configs/horfpn/panoptic-fpn_r50_horfpn_1x_coco.py',
    ade='configs/slak/upernet_slak-tiny_8xb2-160k_ade20k-512x512.py',
    voc='configs/slak/faster-rcnn_slak-tiny_fpn_1x_voc0712.py',
    cityscapes='configs/parc/deeplabv3plus_parc-resnet50-d8_4xb2-80k_cityscapes-512x1024.py',
    voc12aug='configs/parc/deeplabv3_parcnet-s_4xb8-20k_voc12aug-512x512.py',
    imagenet='configs/parc/parc-resnet50_8xb128_in1k.py')


def load(name, *options):
    return load_config(make_parser('').parse_args(
        [str(ROOT / CONFIGS[name]), *(['--cfg-options', *options] if options else [])]))
