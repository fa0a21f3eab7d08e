"""Every backbone, neck and head recorded by torch.export, TorchScript's ONNX exporter and torch.compile."""
import copy
import importlib.util
import io
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

for name in ('mmcv', 'mmdet', 'mmseg'):
    pytest.importorskip(name)

from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.models.decode_heads import HorUPerHead  # noqa: E402
from plugconv_mm.models.necks import HorFPN  # noqa: E402

spec = importlib.util.spec_from_file_location('backbones', Path(__file__).with_name('test_backbones.py'))
backbones = importlib.util.module_from_spec(spec)
spec.loader.exec_module(backbones)


class Pyramid(nn.Module):
    """A neck or a head over maps at strides 4 to 32 of an image."""

    def __init__(self, module):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.module = module

    def forward(self, x):
        maps = [self.stem(x)]
        for _ in range(3):
            maps.append(nn.functional.avg_pool2d(maps[-1], 2))
        outs = self.module(maps)
        return outs if isinstance(outs, (tuple, list)) else (outs, )


def build(name):
    if name.startswith('horfpn'):
        torch.manual_seed(0)
        return Pyramid(HorFPN(in_channels=[8] * 4, out_channels=16, num_outs=5, filter=name[7:], filter_size=(4, 3)))
    if name.startswith('horuper'):
        torch.manual_seed(0)
        return Pyramid(HorUPerHead(
            in_channels=[8] * 4, in_index=[0, 1, 2, 3], channels=16, num_classes=5, filter=name[8:],
            filter_size=(4, 3), norm_cfg=dict(type='BN')))
    return backbones.build(name)


MODELS = (*backbones.VARIANTS, 'horfpn-7x7', 'horfpn-gf', 'horuper-7x7', 'horuper-gf')


def models(*quick):
    """All models, of which those that are not `quick` are slow tests."""
    return pytest.mark.parametrize(
        'name', [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in MODELS])


@models('parc-convnext', 'horfpn-gf')
def test_torch_export_of_any_batch(name):
    model = build(name).eval()
    exported = torch.export.export(
        model, (backbones.image(2, 3, 64, 96), ), dynamic_shapes=({0: torch.export.Dim('batch')}, )).module()
    for batch in (1, 2, 5):
        x = backbones.image(batch, 3, 64, 96)
        backbones.assert_near(backbones.run(exported, x), backbones.run(model, x))


def onnx_by_torchscript(model, size):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(model, (backbones.image(2, 3, *size), ), file, dynamo=False, opset_version=17,
                          input_names=['x'], dynamic_axes={'x': {0: 'batch'}})
    return file.getvalue()


@models('parc-convnext', 'slak', 'horfpn-gf')
def test_onnx_by_torchscript(name):
    onnxruntime = pytest.importorskip('onnxruntime')
    # The older exporter pools to sizes that divide the map's only, and a UPerHead pools to 1, 2, 3 and 6.
    model, size = build(name).eval(), (192, 192) if name.startswith('horuper') else (64, 96)
    session = onnxruntime.InferenceSession(onnx_by_torchscript(model, size))
    for batch in (1, 2, 5):
        x = backbones.image(batch, 3, *size)
        outs = [torch.from_numpy(out) for out in session.run(None, {'x': x.numpy()})]
        backbones.assert_near(outs, backbones.run(model, x))


def test_pooling_that_the_older_exporter_lacks():
    pytest.importorskip('onnx')
    with pytest.raises(ExportError, match='of 2x3, to 2x2, .*use torch.onnx.export.*dynamo=True'):
        onnx_by_torchscript(build('horuper-7x7').eval(), (64, 96))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='the default compiler of torch.compile needs g++')
@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('size', [(224, 224), (512, 512), (97, 131)], ids=str)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_torch_compile_with_its_default_compiler(name, size, training):
    torch.compiler.reset()
    model, x = build(name).train(training), backbones.image(2, 3, *size)
    compiled = copy.deepcopy(model)
    compiled.compile()
    if not training:
        backbones.assert_near(backbones.run(compiled, x), backbones.run(model, x))
        return
    outs, grads = backbones.train_step(compiled, x)
    expected, expected_grads = backbones.train_step(model, x)
    # Batch norms of few values amplify rounding: eager float32 itself is up to 5e-4 deviations away from float64 in the
    # outputs of these networks, and 6e-3 of their norm in the gradients.
    backbones.assert_near([out.detach() for out in outs], [out.detach() for out in expected], tolerance=1e-2)
    grads, expected_grads = (torch.cat([g.flatten() for g in side.values() if g is not None])
                             for side in (grads, expected_grads))
    assert (grads - expected_grads).norm() < 0.1 * expected_grads.norm()
