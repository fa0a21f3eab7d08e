"""Detectors with queries, as functions that an exporter can follow: what they give is what mmdet predicts."""
import pytest
import torch
from torch import nn

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet'):
    pytest.importorskip(name)

import onnxruntime  # noqa: E402
from repository import load_file  # noqa: E402

from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx  # noqa: E402
from plugconv_mm.export.detectors import detector_of  # noqa: E402
from plugconv_mm.export.matching import differing_detection  # noqa: E402
from plugconv_mm.runtime.read_config import read_config  # noqa: E402

detectors = load_file('tests/test_export/test_detectors.py')

MODELS = {
    'detr': 'detr/detr_r50_8xb2-150e_coco', 'conditional-detr': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
    'dab-detr': 'dab_detr/dab-detr_r50_8xb2-50e_coco',
    'deformable-detr': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'deformable-detr-refine': 'deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco',
    'deformable-detr-twostage': 'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco', 'sparse-rcnn': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
    'queryinst': 'queryinst/queryinst_r50_fpn_1x_coco',
    'mask2former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
    'maskformer': 'maskformer/maskformer_r50_ms-16xb1-75e_coco',
}
QUICK = ('dino', )
SAMPLED = ('deformable-detr', 'deformable-detr-refine', 'deformable-detr-twostage', 'dino')
WIDE = ('conditional-detr', 'deformable-detr-twostage')  # mmdet has their width in its code


def thin(node, widths):
    """The config with two layers in each stack, few queries, and other widths."""
    for key, value in list(node.items()):
        if isinstance(value, dict):
            thin(value, widths)
        elif key in ('bbox_head', 'mask_head'):  # of several stages
            node[key] = value[:2]
            for stage in node[key]:
                thin(stage, widths)
        elif key == 'num_stages' and value == 6:
            node.update(num_stages=2, stage_loss_weights=[1, 1])
        elif key == 'in_channels' and isinstance(value, list):
            node[key] = [channels // 8 for channels in value]
        elif key == 'in_channels' and value == 2048:
            node[key] = 256
        elif key == 'num_layers':
            node[key] = 2
        elif key in ('num_queries', 'num_proposals', 'max_per_img', 'max_per_image'):
            node[key] = 30
        elif isinstance(value, int) and value in widths:
            node[key] = widths[value]


def build(name):
    cfg = read_config(f'mmdet::{MODELS[name]}.py')
    cfg.model.backbone.update(init_cfg=None)
    width = 256 if name in WIDE else 32
    thin(cfg.model, {256: width, 128: width // 2, 1024: 64, 2048: 64})
    cfg.model.backbone.base_channels = 8
    if 'bbox_head' in cfg.model:
        cfg.model.bbox_head.embed_dims = width
    if name == 'maskformer':  # a panoptic map is what it gives without being asked
        cfg.model.test_cfg.update(instance_on=True, panoptic_on=False, max_per_image=120)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for key, weight in model.named_parameters():
        if key == 'level_embed':  # which mmdet leaves as the memory was
            nn.init.normal_(weight)
        elif key == 'rpn_head.init_proposal_bboxes.weight':
            nn.init.uniform_(weight, 0.3, 0.6)
        elif key in ('panoptic_head.query_embed.weight', 'panoptic_head.cls_embed.weight'):
            nn.init.normal_(weight, std=4 if 'query' in key else 1)
        elif weight.dim() == 2 and 'embed' not in key and 'init_proposal' not in key:
            # Places that are sampled change with every rounding if they are far apart.
            gain = 0.3 if 'fc_reg' in key else 1 if 'cls' not in key and name in SAMPLED else 2
            nn.init.normal_(weight, std=gain * weight.shape[1]**-0.5)
    return model


@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
                                  for name in MODELS])
def test_detections_are_those_of_mmdet(name):
    model = build(name)
    images = detectors.noise(2)
    with torch.no_grad():
        outputs = detector_of(model).detect(model, images)
    dets, labels, masks = detectors.predicted(model, images, outputs[0].shape[1])
    assert outputs[0].shape == (2, 120 if name == 'maskformer' else 30, 5) and len(set(labels.flatten().tolist())) > 1
    order = dets[..., 4].argsort(1, descending=True)  # mmdet does not sort those of Sparse R-CNN
    torch.testing.assert_close(outputs[0], dets.gather(1, order[..., None].expand(-1, -1, 5)), atol=1e-3, rtol=1e-5)
    assert torch.equal(outputs[1], labels.gather(1, order))
    assert (name == 'maskformer') == (outputs[1] == -1).any()  # what is no thing
    if len(outputs) > 2:
        wanted = [masks[0][place] for place in order[0, :len(masks[0])]]
        assert 0.02 < torch.stack(wanted).float().mean() < 0.6
        for mask, box, want in zip(outputs[2][0], outputs[0][0], wanted, strict=False):
            mask = mask > 0.5 if mask.shape == want.shape else detectors._paste(mask, box)
            assert (mask != want).float().mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_files(name, tmp_path):
    model = build(name)
    images = detectors.noise(3)
    report = export_onnx(model, tmp_path / 'x.onnx', detectors.SIZE, images=images)
    assert report.part.startswith('the whole detector, to dets, labels') and report.compared > 0
    outputs = onnxruntime.InferenceSession(str(report.path)).run(None, {'input': images[1:].numpy()})
    with torch.no_grad():
        expected = detector_of(model).detect(model, images[1:])
    assert not differing_detection(expected, [torch.from_numpy(out) for out in outputs])


@pytest.mark.slow
def test_a_swin_backbone(tmp_path):
    cfg = read_config('mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py')
    cfg.model.backbone.update(init_cfg=None, embed_dims=24, depths=[2, 2, 2, 2])
    cfg.model.neck.in_channels = [48, 96, 192]
    torch.manual_seed(0)
    model = build_model(cfg)
    model.eval()  # Swin's gives nothing back
    model.bbox_head.test_cfg.score_thr = 0.
    nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.01)  # scores apart from one another, and from 1
    report = export_onnx(model, tmp_path / 'x.onnx', detectors.SIZE, images=detectors.noise(3))
    assert report.compared > 100 and report.outputs['dets'] == ('batch', 100, 5)


def test_panoptic_maps_are_not_exported():
    model = nn.Module()
    for name, kind in (('panoptic_head', 'Mask2FormerHead'), ('panoptic_fusion_head', 'MaskFormerFusionHead')):
        setattr(model, name, type(kind, (nn.Module, ), {})())
    model.panoptic_fusion_head.test_cfg = dict(panoptic_on=True)
    with pytest.raises(ExportError, match='it gives a panoptic map only: set model.test_cfg.instance_on=True'):
        detector_of(model)
    model.panoptic_head.__class__ = nn.Identity
    with pytest.raises(ExportError, match='Identity and MaskFormerFusionHead of Module are not exported'):
        detector_of(model)
