"""Segmentors of mmseg, whole: ONNX Runtime gives the logits of PyTorch at the size of the images."""
import pytest
import torch

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet', 'mmseg'):
    pytest.importorskip(name)

import onnxruntime  # noqa: E402
from repository import ROOT  # noqa: E402

from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402

MODELS = {
    'segformer': 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512',
    'upernet': 'upernet/upernet_r18_4xb4-80k_ade20k-512x512',
    'upernet-swin': 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512',
    'deeplabv3': 'deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512',
    'deeplabv3plus': 'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512',
    'pspnet': 'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512',
    'mask2former': 'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512',
    'maskformer': 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512',
    'horupernet': str(ROOT / 'configs/horfpn/horupernet-7x7_r101_8xb2-160k_ade20k-512x512.py'),
}
SIZE = (64, 96)


def thin(node):
    """The config with few channels, and few layers in each stack."""
    for key, value in list(node.items()):
        if isinstance(value, dict):
            thin(value)
        elif key == 'num_layers' and isinstance(value, int):
            node[key] = 2
        elif key == 'num_transformer_decoder_layers' or key == 'num_queries':
            node[key] = 3
        elif key in ('in_channels', 'channels', 'c1_in_channels', 'num_feats', 'feedforward_channels', 'embed_dims',
                     'feat_channels', 'out_channels', 'base_channels', 'c1_channels'):
            node[key] = [_eighth(number) for number in value] if isinstance(value, (list, tuple)) else _eighth(value)


def _eighth(channels):
    return channels // 8 if isinstance(channels, int) and channels >= 48 else channels


def build(name):
    cfg = read_config(MODELS[name] if name == 'horupernet' else f'mmseg::{MODELS[name]}.py')
    cfg.model.test_cfg = dict(mode='whole')
    cfg.model.pop('auxiliary_head', None)
    cfg.model.backbone.update(init_cfg=None)
    cfg.model.pop('pretrained', None)
    if name not in ('segformer', 'upernet-swin'):
        cfg.model.backbone.base_channels = 64
    if name != 'segformer':  # whose smallest is small enough
        thin(cfg.model)
    torch.manual_seed(0)
    return build_model(cfg).eval()


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_files(name, tmp_path):
    model = build(name)
    images = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    report = export_onnx(model, tmp_path / 'x.onnx', SIZE, images=images, raw=True)
    assert report.outputs == {'logits': ('batch', 150, *SIZE)} and report.difference < 1e-4
    outputs, = onnxruntime.InferenceSession(str(report.path)).run(None, {'input': images.numpy()})
    with torch.no_grad():
        expected = model.encode_decode(images, [dict(img_shape=SIZE)] * 3)
    torch.testing.assert_close(torch.from_numpy(outputs), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['upernet', 'pspnet'])
def test_files_for_images_of_any_size(name, tmp_path):
    model = build(name)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    report = export_onnx(model, tmp_path / 'x.onnx', SIZE, images=images, raw=True, any_size=True)
    session = onnxruntime.InferenceSession(str(report.path))
    images = torch.randn(3, 3, 80, 72, generator=torch.Generator().manual_seed(1))
    outputs, = session.run(None, {'input': images.numpy()})
    with torch.no_grad():
        expected = model.encode_decode(images, [dict(img_shape=(80, 72))] * 3)
    torch.testing.assert_close(torch.from_numpy(outputs), expected, atol=1e-4, rtol=1e-3)
