"""Detectors whose masks are maps of the whole image: what they give is what mmdet predicts."""
import pytest
import torch
from repository import load_file
from torch.nn.functional import interpolate

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet'):
    pytest.importorskip(name)

import onnxruntime  # noqa: E402
from mmdet.models.utils import aligned_bilinear  # noqa: E402

from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.export.detectors import detector_of  # noqa: E402
from plugconv_mm.export.matching import differing_detection  # noqa: E402

detectors = load_file('tests/test_export/test_detectors.py')

# Sides of the image by those of the masks, and how masks become as large as the image.
WHOLE = {
    'rtmdet-ins': (8, lambda masks: interpolate(masks.logit(1e-6), scale_factor=8, mode='bilinear').sigmoid()),
    'condinst': (4, lambda masks: aligned_bilinear(masks, 4)),
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
