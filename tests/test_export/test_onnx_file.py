"""ONNX files beside PyTorch: operators, every family of backbones, and files that are not written."""
import pytest
import torch
from torch import nn

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
for name in ('onnxscript', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from repository import load_file  # noqa: E402

from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx, onnx_file  # noqa: E402
from plugconv_mm.ops import (  # noqa: E402
    DecomposedLargeKernelConv2d,
    GnConv2d,
    KWConv2d,
    KWLinear,
    LargeKernelConv2d,
    ParCHW2d,
)

backbones = load_file('tests/test_models/test_backbones.py')

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
    (LargeKernelConv2d(8, kernel_size=21), (12, 7)),
], ids=['parc', 'parc-dense', 'gnconv-gf', 'kw-conv', 'kw-linear', 'large-kernel', 'whole-kernel'])
def test_operators(module, size, tmp_path):
    channels = getattr(module, 'channels', None) or (3 if isinstance(module, nn.Sequential) else 8)
    first = nn.Conv2d(3, channels, 1) if channels != 3 else nn.Identity()
    report = export_onnx(nn.Sequential(first, module), tmp_path / 'x.onnx', size)
    assert 0 <= report.difference < 1e-4
    assert not FORBIDDEN & set(operators(report.path))
    assert report.outputs['output_0'][0] == 'batch' and report.torch_ms > 0 and report.other_ms > 0
    assert [p.name for p in tmp_path.iterdir()] == ['x.onnx']
    for kind, convs in ((DecomposedLargeKernelConv2d, 2), (LargeKernelConv2d, 1)):  # branches and norms are folded away
        if isinstance(module, kind):
            assert operators(report.path).count('Conv') == 1 + convs and not module.deployed


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


class NotFinite(nn.Module):
    """Its second output is none where it is exported."""

    def forward(self, x):
        return x + 1, x * float('nan') if torch.onnx.is_in_onnx_export() else x


def test_outputs_that_are_not_finite(tmp_path):
    with pytest.raises(ExportError, match='with a batch of 1 not all outputs in ONNX Runtime are finite'):
        export_onnx(NotFinite(), tmp_path / 'x.onnx', (4, 4))
    assert not list(tmp_path.iterdir())


class OneValue(nn.Module):

    def forward(self, x):
        return x.mean((1, 2, 3), keepdim=True).flatten(1)


def test_one_value_for_each_image(tmp_path):
    assert export_onnx(OneValue(), tmp_path / 'x.onnx', (4, 4)).difference < 1e-4


def test_weights_too_large_for_a_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, '_MOST_BYTES', 1000)
    layer = nn.Conv2d(3, 64, 3)
    report = export_onnx(layer, tmp_path / 'x.onnx', (8, 8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['x.onnx', 'x.onnx.data']
    assert report.path.stat().st_size < layer.weight.nbytes <= (tmp_path / 'x.onnx.data').stat().st_size
    x = torch.randn(2, 3, 8, 8)
    output = onnxruntime.InferenceSession(str(report.path)).run(None, {'input': x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(output), layer(x), atol=1e-5, rtol=1e-5)
