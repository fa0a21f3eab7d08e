"""Operators plugged into the segmentors of mmseg's model zoo, a config of each kind, at their full width."""
import plugging_sweep
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.model import revert_sync_batchnorm  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from plugconv_mm.runtime.build import build_part  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402
from plugconv_mm.runtime.shrink_config import cap_numbers, leave_out_weights  # noqa: E402

QUICK = ['cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680', 'poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512',
         'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512']
CONFIGS = {  # `model` is changed in its config, `size` is that of the images, `mode` that of the outputs
    'ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'apcnet/apcnet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'beit/beit-base_upernet_8xb2-160k_ade20k-640x640': dict(model=dict(backbone=dict(img_size=(64, 96)))),
    'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024': {},
    'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024': {},
    'ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680': {},
    'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512': {},
    'danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024': {},
    'deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'dmnet/dmnet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512': {},
    'emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024': {},
    'encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024': {},
    'fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024': {},
    'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024': {},
    'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024': {},
    'gcnet/gcnet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024': {},
    'icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832': {},
    'isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512': {},
    'mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512': dict(model=dict(backbone=dict(img_size=(64, 96)))),
    'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024': dict(mode='predict'),
    'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512': dict(mode='predict'),
    'mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024': {},
    'mobilenet_v3/mobilenet-v3-d8-s_lraspp_4xb4-320k_cityscapes-512x1024': dict(size=(400, 416)),
    'nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024': {},
    'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes': {},
    'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024': dict(mode='predict'),
    'poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512': {},
    'psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024': {},
    'resnest/resnest_s101-d8_fcn_4xb2-80k_cityscapes-512x1024': {},
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512': {},
    'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512': {},
    'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512': {},
    'sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024': {},
    'setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512': dict(
        model=dict(backbone=dict(num_layers=4, out_indices=(0, 1, 2, 3)))),
    'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512': dict(
        model=dict(backbone=dict(num_layers=4, out_indices=(0, 1, 2, 3)))),
    'stdc/stdc1_4xb12-80k_cityscapes-512x1024': {},
    'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512': {},
    'twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512': {},
    'twins/twins_svt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512': {},
    'unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024': {},
    'upernet/upernet_r18_4xb2-40k_cityscapes-512x1024': {},
    'vit/vit_deit-s16_upernet_8xb2-80k_ade20k-512x512': {},
}


@pytest.mark.parametrize('config', [
    pytest.param(config, marks=[] if config in QUICK else pytest.mark.slow) for config in CONFIGS])
def test_a_segmentor_starts_as_it_was(config, record_property):
    options = CONFIGS[config]
    size = options.get('size', (64, 96))
    cfg = read_config(f'mmseg::{config}.py')
    leave_out_weights(cfg)
    cap_numbers(cfg.model)
    cfg.merge_from_dict(dict(model=options.get('model', {})))
    model = revert_sync_batchnorm(build_part(cfg, cfg.model))
    init_default_scope('mmseg')
    record_property('class', type(model).__name__)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *size, generator=generator)
    labels = torch.randint(model.num_classes, (2, 1, *size), generator=generator)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label), gt_edge_map=PixelData(data=(label % 2).float()),
                             metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size)) for label in labels]

    def loss(network):
        return network.parse_losses(network(images, samples, mode='loss'))[0]

    mode = options.get('mode', 'tensor')
    plugging_sweep.check(model, lambda network: network(images, samples, mode=mode), loss, size, record_property)
