"""The part of a model that is exported, by its task."""
import json

import pytest
import torch
from torch import nn

onnxruntime = pytest.importorskip('onnxruntime')
for name in ('onnx', 'onnxscript', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmdet.models.data_preprocessors import DetDataPreprocessor  # noqa: E402
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmpretrain.models.utils import ClsDataPreprocessor  # noqa: E402
from mmseg.models.data_preprocessor import SegDataPreProcessor  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from repository import load_file  # noqa: E402
from small_models import small_model  # noqa: E402

from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.export.pasting import paste  # noqa: E402
from plugconv_mm.export.pixels import Pixels, padded_shape  # noqa: E402
from plugconv_mm.export.tasks import input_channels, part_of  # noqa: E402
from plugconv_mm.ops import KWConv2d  # noqa: E402

backbones = load_file('tests/test_models/test_backbones.py')


DETECTIONS = {'dets': ('batch', 20, 5), 'labels': ('batch', 20), 'masks': ('batch', 20, 28, 28)}


@pytest.mark.slow
@pytest.mark.parametrize('kind, options, part, outputs', [
    ('classifier', {}, 'the whole classifier, to scores', {'scores': ('batch', 5)}),
    ('classifier', dict(raw=True), 'the whole classifier, to logits', {'logits': ('batch', 5)}),
    ('segmentor', {}, 'the whole segmentor, to labels', {'labels': ('batch', 64, 96)}),
    ('segmentor', dict(raw=True), 'the whole segmentor, to logits', {'logits': ('batch', 3, 64, 96)}),
    ('detector', {}, 'the whole detector, to dets, labels, masks', DETECTIONS),
    ('detector', dict(paste_masks=True), 'the whole detector, to dets, labels, masks', {
        **DETECTIONS, 'masks': ('batch', 20, 64, 96)}),
    ('detector', dict(features=True), 'backbone and neck of the detector', {
        f'feature_{i}': ('batch', 64, 16 >> i, 24 >> i) for i in range(4)})])
def test_models(kind, options, part, outputs, tmp_path):
    model = small_model(kind)
    model.dataset_meta = dict(classes=('x', 'y'), palette=[(1, 2, 3), (4, 5, 6)])
    report = export_onnx(model, tmp_path / 'x.onnx', (64, 96), classes=('a', 'b'), **options)
    assert report.part.startswith(part) and report.outputs == outputs and report.difference < 1e-4
    assert report.input == ('batch', 3, 64, 96) and (report.compared is not None) == ('dets' in outputs)
    session = onnxruntime.InferenceSession(str(report.path))
    assert [out.name for out in session.get_outputs()] == list(outputs)
    meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert meta['classes'] == ['a', 'b'] and meta['palette'] == [[1, 2, 3], [4, 5, 6]]
    assert meta['order'] == 'RGB' and meta['layout'] == 'NCHW' and meta['size'] == [64, 96]
    assert meta.get('task', 'detection').startswith(kind[:6]) and ('task' in meta) == ('features' not in options)
    if kind == 'classifier':
        assert meta['mean'] == [1, 2, 3] and meta['std'] == [4, 5, 6] and meta['pad'] == [3, 2, 1]
    if 'masks' in outputs:
        assert meta['masks'] == ('image' if options else 'box') and meta.get('mask_stride') == (1 if options else None)


@pytest.mark.slow
def test_pixels_are_prepared_inside(tmp_path):
    """As the preprocessor does it, which pads to multiples of 32."""
    model = small_model('segmentor')
    model.data_preprocessor.test_cfg = dict(size_divisor=32)
    pixels = torch.randint(256, (3, 50, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = [SegDataSample(metainfo=dict(img_shape=(50, 70), ori_shape=(50, 70))) for _ in pixels]
    batch = model.data_preprocessor(dict(inputs=list(pixels.permute(0, 3, 1, 2)), data_samples=samples), False)
    prepared = Pixels(model)(pixels, padded_shape(model, (50, 70)))
    assert batch['inputs'].shape == (3, 3, 64, 96)
    torch.testing.assert_close(prepared, batch['inputs'])
    report = export_onnx(model, tmp_path / 'x.onnx', (50, 70), images=pixels, uint8=True)
    assert report.input == ('batch', 50, 70, 3) and report.outputs == {'labels': ('batch', 50, 70)}
    session = onnxruntime.InferenceSession(str(report.path))
    meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert meta['order'] == 'BGR' and meta['layout'] == 'NHWC' and 'mean' not in meta
    expected = [sample.pred_sem_seg.data[0] for sample in model.predict(batch['inputs'], batch['data_samples'])]
    for got, want in zip(session.run(None, {'input': pixels.numpy()})[0], expected, strict=True):
        assert (torch.from_numpy(got) != want).float().mean() < 0.01


@pytest.mark.parametrize('name', ['detector', 'segmentor', 'classifier'])
@pytest.mark.parametrize('swaps', [False, True])
def test_every_preprocessor(name, swaps):
    model = small_model(name)
    settings = dict(mean=[10, 20, 30], std=[2, 3, 4])
    model.data_preprocessor = {
        'detector': lambda: DetDataPreprocessor(**settings, bgr_to_rgb=swaps, pad_size_divisor=32, pad_value=7),
        'segmentor': lambda: SegDataPreProcessor(**settings, bgr_to_rgb=swaps, size_divisor=32),
        'classifier': lambda: ClsDataPreprocessor(**settings, to_rgb=swaps, pad_size_divisor=16, pad_value=7)}[name]()
    pixels = torch.randint(256, (2, 20, 40, 3), dtype=torch.uint8)
    meta = dict(img_shape=(20, 40), ori_shape=(20, 40))
    samples = None if name == 'classifier' else [
        {'detector': DetDataSample, 'segmentor': SegDataSample}[name](metainfo=meta) for _ in pixels]
    batch = dict(inputs=list(pixels.permute(0, 3, 1, 2)), data_samples=samples)
    expected = model.data_preprocessor(batch, False)['inputs']
    assert padded_shape(model, (20, 40)) == tuple(expected.shape[2:])
    torch.testing.assert_close(Pixels(model)(pixels, padded_shape(model, (20, 40))), expected)


def test_masks_of_boxes_are_pasted_as_mmdet_does():
    generator = torch.Generator().manual_seed(0)
    masks, corners = torch.rand(2, 5, 28, 28, generator=generator), torch.rand(2, 5, 4, generator=generator)
    boxes = torch.cat((corners[..., :2] * 30 - 5, corners[..., :2] * 30 + corners[..., 2:] * 40), 2)
    boxes[1, 4] = 0  # what stands for no box
    pasted = paste(masks, boxes, (48, 64), 0.5)
    expected = _do_paste_mask(masks.view(10, 1, 28, 28), boxes.view(10, 4), 48, 64, skip_empty=False)[0] >= 0.5
    assert pasted.shape == (2, 5, 48, 64) and not pasted[1, 4].any() and pasted.any((2, 3)).sum() == 9
    assert (pasted.view(10, 48, 64)[:9] != expected[:9]).float().mean() < 1e-3


def test_options_of_other_models():
    for options, says in ((dict(features=True), 'features is an option of detectors, and Conv2d is none'),
                          (dict(paste_masks=True), 'paste_masks is an option of detectors'),
                          (dict(raw=True), 'Conv2d has no last step to leave out')):
        with pytest.raises(ExportError, match=says):
            part_of(nn.Conv2d(3, 4, 1), **options)
    with pytest.raises(ExportError, match='MaskRCNN cannot leave before its suppression.*RetinaHead'):
        part_of(small_model('detector'), raw=True)
    with pytest.raises(ExportError, match='Conv2d has no data_preprocessor, which tells how pixels'):
        Pixels(nn.Conv2d(3, 4, 1))


def test_channels_of_an_image():
    """Where the first layer is a dynamic convolution, and the first ordinary one another."""
    assert input_channels(backbones.build('kw-mobilenetv2-half')) == 3
    assert input_channels(nn.Sequential(KWConv2d(4, 8, 3), nn.Conv2d(8, 8, 1))) == 4
    focus = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 1))
    focus.data_preprocessor = nn.Identity()
    assert input_channels(focus) == 3
