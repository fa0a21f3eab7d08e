"""ONNX files beside PyTorch: every family of backbones, whole models, and what is refused before the export."""
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
for name in ('onnxscript', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402

from plugconv_mm import export  # noqa: E402
from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.ops import DecomposedLargeKernelConv2d, GnConv2d, KWConv2d, KWLinear, ParCHW2d  # noqa: E402

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location('backbones', ROOT / 'tests/test_models/test_backbones.py')
backbones = importlib.util.module_from_spec(spec)
spec.loader.exec_module(backbones)

# Of the default domain, without anything that is complex.
FORBIDDEN = {'DFT', 'STFT', 'Loop', 'Scan', 'If', 'NonZero'}


def operators(path):
    model = onnx.load(path)
    assert {op.domain for op in model.opset_import} <= {'', 'ai.onnx'}
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize('module, size', [
    (ParCHW2d(8, meta_size=7), (6, 9)),
    (ParCHW2d(8, meta_size=7, depthwise=False, backend='fft'), (9, 6)),
    (GnConv2d(8, order=2, filter='gf', filter_size=(7, 4)), (5, 8)),
    (nn.Sequential(KWConv2d(3, 8, 3, stride=2, padding=1), KWConv2d(8, 8, 3, padding=1, groups=8)), (9, 12)),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), KWLinear(30, 7)), (5, 6)),
    (DecomposedLargeKernelConv2d(8, kernel_size=21), (12, 7)),
], ids=['parc', 'parc-dense', 'gnconv-gf', 'kw-conv', 'kw-linear', 'large-kernel'])
def test_operators(module, size, tmp_path):
    channels = getattr(module, 'channels', None) or (3 if isinstance(module, nn.Sequential) else 8)
    first = nn.Conv2d(3, channels, 1) if channels != 3 else nn.Identity()
    report = export_onnx(nn.Sequential(first, module), tmp_path / 'x.onnx', size)
    assert 0 <= report.difference < 1e-4
    assert not FORBIDDEN & set(operators(report.path))
    assert report.outputs['output_0'][0] == 'batch' and report.torch_ms > 0 and report.onnx_ms > 0
    assert [p.name for p in tmp_path.iterdir()] == ['x.onnx']
    if isinstance(module, DecomposedLargeKernelConv2d):  # the branch and the norms are folded away
        assert operators(report.path).count('Conv') == 3 and not module.deployed


QUICK = ('parc-convnext', )


@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
                                  for name in backbones.VARIANTS])
def test_every_family(name, tmp_path):
    """The file gives PyTorch's maps for a batch of a size that was not seen in the export."""
    model, size = backbones.build(name).eval(), (64, 96)
    report = export_onnx(model, tmp_path / 'x.onnx', size)
    assert report.difference < 1e-4 and not FORBIDDEN & set(operators(report.path))
    x = backbones.image(4, 3, *size)
    outputs = onnxruntime.InferenceSession(str(report.path)).run(None, {'input': x.numpy()})
    backbones.assert_near([torch.from_numpy(out) for out in outputs], backbones.run(model, x))


def thin(kind):
    """A small model of each task, of the digits' configs."""
    torch.manual_seed(0)
    backbone = dict(type='plugconv_mm.ParCConvNeXt', arch=backbones.CONVNEXT, parc_blocks=(0, 0, 1, 0))
    channels = backbones.CONVNEXT['channels']
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


@pytest.mark.slow
@pytest.mark.parametrize('kind, part, outputs', [
    ('classifier', 'the whole classifier', {'logits': ('batch', 5)}),
    ('segmentor', 'the whole segmentor', {'logits': ('batch', 3, 64, 96)}),
    ('detector', 'backbone and neck of the detector; its heads', {
        f'feature_{i}': ('batch', 64, 16 >> i, 24 >> i) for i in range(4)})])
def test_models(kind, part, outputs, tmp_path):
    model = thin(kind)
    report = export_onnx(model, tmp_path / 'x.onnx', (64, 96), classes=('a', 'b'))
    assert report.part.startswith(part) and report.outputs == outputs and report.difference < 1e-4
    session = onnxruntime.InferenceSession(str(report.path))
    assert [out.name for out in session.get_outputs()] == list(outputs)
    meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert meta['classes'] == ['a', 'b'] and meta['order'] == 'RGB' and len(meta['mean']) == len(meta['std']) == 3
    if kind == 'classifier':
        assert meta['mean'] == [1, 2, 3]


def refuses(model, size, says, tmp_path, monkeypatch):
    """Before the export, and nothing is written."""
    monkeypatch.setattr(export, '_export', lambda *args: pytest.fail('it went as far as the export'))
    with pytest.raises(ExportError, match=says):
        export_onnx(model, tmp_path / 'x.onnx', size)
    assert not list(tmp_path.iterdir())


def test_sizes_are_checked_first(tmp_path, monkeypatch):
    refuses(nn.Conv2d(3, 4, 1), (0, 4), r'a height and a width in pixels, got \(0, 4\)', tmp_path, monkeypatch)
    refuses(nn.Conv2d(3, 4, 5), (3, 9), 'Conv2d does not take images of 3x9', tmp_path, monkeypatch)
    refuses(thin('detector'), (70, 96), 'multiples of 32 only, .*--shape 96 96', tmp_path, monkeypatch)
    model = thin('segmentor')
    model.test_cfg = Config(dict(mode='slide', crop_size=(32, 64), stride=(16, 16)))
    refuses(model, (64, 96), r'windows of \(32, 64\).*--shape 32 64', tmp_path, monkeypatch)


def test_options_are_checked_first(tmp_path, monkeypatch):
    refuses(nn.Conv2d(3, 4, 1).double(), (8, 8), 'exported in float32, and weight is torch.float64', tmp_path,
            monkeypatch)
    from mmcv.ops import DeformConv2d
    refuses(nn.Sequential(DeformConv2d(3, 4, 1)), (8, 8), '0 is a DeformConv2d of mmcv', tmp_path, monkeypatch)
    monkeypatch.setattr(export, '_MAX_BYTES', 10)
    refuses(nn.Conv2d(3, 4, 1), (8, 8), 'the weights take .* an ONNX file holds at most 2', tmp_path, monkeypatch)


def test_missing_folder_or_package(tmp_path, monkeypatch):
    with pytest.raises(ExportError, match='there is no folder .*none to write x.onnx into'):
        export_onnx(nn.Conv2d(3, 4, 1), tmp_path / 'none/x.onnx', (8, 8))
    for name in ('onnxruntime', 'onnxscript'):
        monkeypatch.setitem(sys.modules, name, None)
    says = re.escape("needs onnxscript, onnxruntime: pip install onnxscript onnxruntime, or all of it with pip install "
                     "'plugconv-mm[onnx]'")
    refuses(nn.Conv2d(3, 4, 1), (8, 8), says, tmp_path, monkeypatch)


class Wrong(nn.Module):
    """Adds 1 where it is exported."""

    def forward(self, x):
        return x + torch.onnx.is_in_onnx_export()


def test_a_difference_leaves_the_older_file(tmp_path):
    path = tmp_path / 'x.onnx'
    path.write_text('older')
    with pytest.raises(ExportError, match='differ from those of PyTorch by 1.* was not written'):
        export_onnx(Wrong(), path, (4, 4))
    assert path.read_text() == 'older' and list(tmp_path.iterdir()) == [path]


def test_channels_of_a_image():
    """Where the first layer is a dynamic convolution, and the first ordinary one another."""
    assert export._channels(backbones.build('kw-mobilenetv2-half')) == 3
    assert export._channels(nn.Sequential(KWConv2d(4, 8, 3), nn.Conv2d(8, 8, 1))) == 4


class NotFinite(nn.Module):
    """Its second output is none where it is exported."""

    def forward(self, x):
        return x, x * float('nan') if torch.onnx.is_in_onnx_export() else x


def test_outputs_that_are_not_finite(tmp_path):
    with pytest.raises(ExportError, match='with a batch of 1 not all outputs in ONNX Runtime are finite'):
        export_onnx(NotFinite(), tmp_path / 'x.onnx', (4, 4))
    assert not list(tmp_path.iterdir())


class OneValue(nn.Module):

    def forward(self, x):
        return x.mean((1, 2, 3), keepdim=True).flatten(1)


def test_one_value_for_each_image(tmp_path):
    assert export_onnx(OneValue(), tmp_path / 'x.onnx', (4, 4)).difference < 1e-4
