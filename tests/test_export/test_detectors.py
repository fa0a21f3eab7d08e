"""Whole detectors, as functions that an exporter can follow: what they give is what mmdet predicts."""
import pytest
import torch
from torch import nn

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet'):
    pytest.importorskip(name)

import onnxruntime  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402

from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.export.detectors import detector_of  # noqa: E402
from plugconv_mm.export.matching import differing_detection  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402

DENSE = {
    'retinanet': 'retinanet/retinanet_r50_fpn_1x_coco', 'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'atss': 'atss/atss_r50_fpn_1x_coco', 'gfl': 'gfl/gfl_r50_fpn_1x_coco',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco', 'yolox': 'yolox/yolox_tiny_8xb8-300e_coco',
    'ssdlite': 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco',
    'free-anchor': 'free_anchor/freeanchor_r50_fpn_1x_coco', 'fsaf': 'fsaf/fsaf_r50_fpn_1x_coco',
    'tood': 'tood/tood_r50_fpn_1x_coco', 'vfnet': 'vfnet/vfnet_r50_fpn_1x_coco', 'ddod': 'ddod/ddod_r50_fpn_1x_coco',
}
TWO_STAGE = {
    'faster-rcnn': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'mask-rcnn': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    'cascade-rcnn': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
    'cascade-mask-rcnn': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
    'dcn': 'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
}
MASKS = {  # of whole images, see test_masks_of_images.py
    'rtmdet-ins': 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
    'condinst': 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance',
    'boxinst': 'boxinst/boxinst_r50_fpn_ms-90k_coco', 'solov2': 'solov2/solov2_r50_fpn_1x_coco',
}
SIZE = (128, 160)


def noise(number):
    return torch.randn(number, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def samples(number):
    meta = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE, batch_input_shape=SIZE, scale_factor=(1., 1.))
    return [DetDataSample(metainfo=meta) for _ in range(number)]


def _normalise(layer, inputs, output):
    """Scale the weights, once, so that the outputs have a deviation of 1."""
    if not hasattr(layer, 'normalised'):
        bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (output.dim() - 2))
        deviation = (output - bias).std()
        layer.normalised = True
        layer.weight.div_(deviation)
        return (output - bias) / deviation + bias
    return None


def build(name):
    """A detector that finds something in noise: its weights are wide enough, and its thresholds low."""
    cfg = read_config(f'mmdet::{(DENSE | TWO_STAGE | MASKS)[name]}.py')
    cfg.model.backbone.update(init_cfg=None)
    if cfg.model.backbone.type == 'ResNet':
        cfg.model.backbone.base_channels = 8
        cfg.model.neck.in_channels = [32, 64, 128, 256]
    if name in TWO_STAGE:
        cfg.model.test_cfg.rpn.max_per_img, cfg.model.test_cfg.rcnn.max_per_img = 60, 40
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for part in model.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(part.weight)
            part.register_forward_hook(_normalise)
            if part.bias is not None and name not in TWO_STAGE and part.weight.shape[0] % 80 == 0:  # of the classes
                nn.init.constant_(part.bias, -5 if name == 'solov2' else -3)  # fewer of SOLOv2's than its nms_pre
    with torch.no_grad():
        model.predict(noise(2), samples(2), rescale=False)
    for part in model.modules():
        part._forward_hooks.clear()
    if name != 'solov2':
        head = model.roi_head if name in TWO_STAGE else model.bbox_head
        head.test_cfg.update(score_thr=min(head.test_cfg.score_thr, 0.02))
    return model


def predicted(model, images, limit):
    """What mmdet predicts, in the form of the export."""
    dets, labels = torch.zeros(len(images), limit, 5), torch.full((len(images), limit), -1)
    masks = []
    with torch.no_grad():
        for i, sample in enumerate(model.predict(images, samples(len(images)), rescale=False)):
            found = sample.pred_instances
            count = min(len(found), limit)
            dets[i, :count] = torch.cat((found.bboxes, found.scores[:, None]), 1)[:count]
            labels[i, :count] = found.labels[:count]
            masks.append(found.get('masks'))
    return dets, labels, masks


SLOW = ('cascade-mask-rcnn', 'dcn', 'ddod', 'tood')


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
                                  for name in [*DENSE, *TWO_STAGE]])
def test_detections_are_those_of_mmdet(name):
    model = build(name)
    images = noise(2)
    with torch.no_grad():
        outputs = detector_of(model).detect(model, images)
    dets, labels, masks = predicted(model, images, outputs[0].shape[1])
    assert (dets[..., 4] > 0.02).sum() > 20 and len(set(labels.flatten().tolist())) > 1
    torch.testing.assert_close(outputs[0][..., 4], dets[..., 4], atol=1e-5, rtol=1e-5)
    assert not differing_detection((dets, labels), outputs[:2])
    assert len(outputs) == 2 + ('mask' in name)
    if 'mask' in name:
        assert outputs[2].shape == (2, 40, 28, 28)
        for i in range(2):  # pasted as mmdet does
            pasted = [_paste(outputs[2][i, k], outputs[0][i, k]) for k in range(5)]
            assert all((a != b).float().mean() < 0.01 for a, b in zip(pasted, masks[i], strict=False))


def _paste(mask, box):
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
    return _do_paste_mask(mask[None, None], box[None, :4], *SIZE, skip_empty=False)[0][0] >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize('name', [*DENSE, *TWO_STAGE])
def test_files_of_whole_detectors(name, tmp_path):
    model = build(name)
    images = noise(3)
    report = export_onnx(model, tmp_path / 'x.onnx', SIZE, images=images)
    assert report.part.startswith('the whole detector, to dets, labels') and report.compared > 0
    outputs = onnxruntime.InferenceSession(str(report.path)).run(None, {'input': images[1:].numpy()})
    with torch.no_grad():
        expected = detector_of(model).detect(model, images[1:])
    assert not differing_detection(expected, [torch.from_numpy(out) for out in outputs])


def test_heads_that_are_not_exported(tmp_path):
    model = build('retinanet')
    model.bbox_head.__class__ = type('NewHead', (type(model.bbox_head), ), {})
    with pytest.raises(ExportError, match='NewHead, the head of RetinaNet, is not exported; those that are: ATSSHead'):
        export_onnx(model, tmp_path / 'x.onnx', SIZE)
    model = build('retinanet')
    model.bbox_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(ExportError, match="suppression of this detector is 'soft_nms', and plain NMS"):
        export_onnx(model, tmp_path / 'x.onnx', SIZE)
    model = build('faster-rcnn')
    model.roi_head.bbox_roi_extractor.__class__ = nn.Identity
    with pytest.raises(ExportError, match='get their features from Identity'):
        detector_of(model)


def test_what_is_missing_is_said():
    boxes = torch.tensor([[[1., 2, 30, 40, 0.9], [5, 5, 9, 9, 0.5], [0, 0, 0, 0, 0]]])
    labels = torch.tensor([[3, 4, -1]])
    assert differing_detection((boxes, labels), (boxes, labels)) == ''
    fewer = (torch.cat((boxes[:, :1], torch.zeros(1, 2, 5)), 1), torch.tensor([[3, -1, -1]]))
    assert differing_detection((boxes, labels), fewer) == \
        'a box (5.0, 5.0, 9.0, 9.0) of class 4 with score 0.500 that ONNX Runtime does not find'
    assert 'class 4' in differing_detection(fewer, (boxes, labels))
    assert 'that PyTorch does not find' in differing_detection(fewer, (boxes, labels))
    for other in (boxes + torch.tensor([1, 0, 0, 0, 0]), boxes + torch.tensor([0, 0, 0, 0, 0.01])):
        assert differing_detection((boxes, labels), (other, labels))
    assert differing_detection((boxes, labels), (boxes, labels + 1))


def test_boxes_that_have_no_place():
    """Which of several boxes of one score is the last of K is chance; a better one has to be there."""
    boxes = torch.tensor([[[1., 2, 30, 40, 0.9], [5, 5, 9, 9, 0.5]]])
    others = torch.tensor([[[1., 2, 30, 40, 0.9], [50, 5, 90, 9, 0.5]]])
    labels = torch.tensor([[3, 4]])
    assert not differing_detection((boxes, labels), (others, labels))
    others[0, 0, 0] = 20
    assert 'of class 3 with score 0.900' in differing_detection((boxes, labels), (others, labels))
    others[0, 0, 0], others[0, 1, 4] = 1, 0.04  # there is a place left
    assert 'of class 4 with score 0.500' in differing_detection((boxes, labels), (others, labels))
