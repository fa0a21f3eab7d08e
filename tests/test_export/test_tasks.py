"""The part of a model that is exported, by its task."""
import json

import pytest
from torch import nn

onnxruntime = pytest.importorskip('onnxruntime')
for name in ('onnx', 'onnxscript', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from repository import load_file  # noqa: E402
from small_models import small_model  # noqa: E402

from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.export.tasks import input_channels  # noqa: E402
from plugconv_mm.ops import KWConv2d  # noqa: E402

backbones = load_file('tests/test_models/test_backbones.py')


@pytest.mark.slow
@pytest.mark.parametrize('kind, features, part, outputs', [
    ('classifier', False, 'the whole classifier', {'logits': ('batch', 5)}),
    ('segmentor', False, 'the whole segmentor', {'logits': ('batch', 3, 64, 96)}),
    ('detector', False, 'the whole detector, to dets, labels, masks', {
        'dets': ('batch', 20, 5), 'labels': ('batch', 20), 'masks': ('batch', 20, 28, 28)}),
    ('detector', True, 'backbone and neck of the detector', {
        f'feature_{i}': ('batch', 64, 16 >> i, 24 >> i) for i in range(4)})])
def test_models(kind, features, part, outputs, tmp_path):
    model = small_model(kind)
    report = export_onnx(model, tmp_path / 'x.onnx', (64, 96), classes=('a', 'b'), features=features)
    assert report.part.startswith(part) and report.outputs == outputs and report.difference < 1e-4
    assert (report.compared is None) == (outputs.keys() != {'dets', 'labels', 'masks'})
    session = onnxruntime.InferenceSession(str(report.path))
    assert [out.name for out in session.get_outputs()] == list(outputs)
    meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert meta['classes'] == ['a', 'b'] and meta['order'] == 'RGB' and len(meta['mean']) == len(meta['std']) == 3
    if kind == 'classifier':
        assert meta['mean'] == [1, 2, 3]


def test_channels_of_an_image():
    """Where the first layer is a dynamic convolution, and the first ordinary one another."""
    assert input_channels(backbones.build('kw-mobilenetv2-half')) == 3
    assert input_channels(nn.Sequential(KWConv2d(4, 8, 3), nn.Conv2d(8, 8, 1))) == 4
    focus = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 1))
    focus.data_preprocessor = nn.Identity()
    assert input_channels(focus) == 3
