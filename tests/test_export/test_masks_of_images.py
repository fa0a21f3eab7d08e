"""Detectors whose masks are maps of the whole image: what they give is what mmdet predicts."""
from types import SimpleNamespace

import pytest
import torch
from repository import load_file
from torch.nn.functional import interpolate

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet'):
    pytest.importorskip(name)

import onnxruntime  # noqa: E402
from mmdet.models.layers import mask_matrix_nms  # noqa: E402
from mmdet.models.utils import aligned_bilinear  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402

from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx, matrix_nms  # noqa: E402
from plugconv_mm.export.detectors import detector_of  # noqa: E402
from plugconv_mm.export.matching import differing_detection  # noqa: E402

detectors = load_file('tests/test_export/test_detectors.py')

# Sides of the image by those of the masks, and how masks become as large as the image.
WHOLE = {
    'rtmdet-ins': (8, lambda masks: interpolate(masks.logit(1e-6), scale_factor=8, mode='bilinear').sigmoid()),
    'condinst': (4, lambda masks: aligned_bilinear(masks, 4)),
    'boxinst': (4, lambda masks: aligned_bilinear(masks, 4)),
    'solov2': (4, lambda masks: interpolate(masks, scale_factor=4, mode='bilinear')),
}
QUICK = ('rtmdet-ins', )


def build(name):
    """A detector whose masks are neither empty nor full; RTMDet's logits, a product of three layers, are moderate."""
    model = detectors.build(name)
    if name == 'rtmdet-ins':
        with torch.no_grad():
            for kernel in model.bbox_head.rtm_kernel:
                kernel.weight.mul_(0.3)
                kernel.bias.mul_(0.3)
    return model


@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
                                  for name in detectors.MASKS])
def test_masks_are_those_of_mmdet(name):
    model, images = build(name), detectors.noise(2)
    with torch.no_grad():
        outputs = detector_of(model).detect(model, images)
    dets, labels, masks = detectors.predicted(model, images, outputs[0].shape[1])
    assert (dets[..., 4] > 0.02).sum() > 20 and len(set(labels.flatten().tolist())) > 1
    torch.testing.assert_close(outputs[0][..., 4], dets[..., 4], atol=1e-5, rtol=1e-5)
    assert not differing_detection((dets, labels), outputs[:2])
    times, enlarge = WHOLE[name]
    assert outputs[2].shape == (*labels.shape, *(side // times for side in detectors.SIZE))
    plain = interpolate(outputs[2], scale_factor=times, mode='bilinear')
    for own, near, by_head in zip(enlarge(outputs[2]), plain, masks, strict=True):
        areas = by_head.float().mean((1, 2))
        assert ((areas > 0.02) & (areas < 0.98)).sum() > 5
        for found, allowed in ((own, 1e-3), (near, 0.02)):
            assert ((found[:len(by_head)] > 0.5) != by_head).float().mean((1, 2)).mean() < allowed


@pytest.mark.parametrize('kernel', ['gaussian', 'linear'])
def test_matrix_nms_is_that_of_mmdet(kernel):
    generator = torch.Generator().manual_seed(0)
    centres, sides = torch.rand(2, 30, 2, 1, generator=generator)
    masks = ((torch.linspace(0, 1, 16) - centres).abs() < sides / 3 + 0.05)[:, :, None]  # rectangles
    masks = masks[:, 0].transpose(1, 2) & masks[:, 1]
    labels = torch.randint(3, (30, ), generator=generator)
    scores = torch.rand(30, generator=generator).sort(descending=True)[0]
    decay = matrix_nms.decay(masks.flatten(1)[None].float(), labels[None], dict(kernel=kernel, sigma=2.))[0]
    kept, _, _, places = mask_matrix_nms(masks, labels, scores, kernel=kernel, sigma=2.)
    assert decay.min() < 0.5
    torch.testing.assert_close((scores * decay)[places], kept)


@pytest.mark.parametrize('size, changed, says', [
    (1, dict(kernel='box'), "is 'gaussian' or 'linear', got 'box'"),
    (1, dict(nms_pre=-1), 'nms_pre of its test_cfg is -1'), (3, {}, 'with dynamic_conv_size=1, got 3'),
])
def test_solo_that_is_not_exported(size, changed, says):
    cfg = ConfigDict(dict(kernel='linear', nms_pre=500, max_per_img=100) | changed)
    with pytest.raises(ExportError, match=says):
        matrix_nms.check_solo(SimpleNamespace(dynamic_conv_size=size, test_cfg=cfg))


@pytest.mark.slow
@pytest.mark.parametrize('name', detectors.MASKS)
def test_files(name, tmp_path):
    model, images = build(name), detectors.noise(3)
    report = export_onnx(model, tmp_path / 'x.onnx', detectors.SIZE, images=images)
    assert report.part == 'the whole detector, to dets, labels, masks' and report.compared > 0
    outputs = onnxruntime.InferenceSession(str(report.path)).run(None, {'input': images[1:].numpy()})
    with torch.no_grad():
        expected = detector_of(model).detect(model, images[1:])
    assert not differing_detection(expected, [torch.from_numpy(out) for out in outputs])
