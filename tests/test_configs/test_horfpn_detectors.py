"""HorFPN in the detectors of the worked configs: a training step and a prediction, with thin backbones."""
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.structures import InstanceData, PixelData  # noqa: E402

from plugconv_mm.runtime.dry_run import leave_out_weights  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

ROOT = Path(__file__).parents[2] / 'configs/horfpn'
FAST = ['retinanet_r50_horfpn_1x_coco', 'fcos_r50-caffe_horfpn_gn-head_1x_coco', 'faster-rcnn_r50_horfpn_1x_coco']
SLOW = [
    'atss_r50_horfpn_1x_coco', 'gfl_r50_horfpn_1x_coco', 'tood_r50_horfpn_1x_coco', 'cascade-rcnn_r50_horfpn_1x_coco',
    'sparse-rcnn_r50_horfpn_1x_coco', 'solov2_r50_horfpn_1x_coco', 'condinst_r50_horfpn_ms-poly-90k_coco',
    'panoptic-fpn_r50_horfpn_1x_coco', 'mask-rcnn_r50_horfpn-7x7_ms-480-800-1x_coco',
    'mask-rcnn_r50_horfpn-gf_ms-480-800-1x_coco']
SIDE = 128


def sample():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    size = (SIDE, SIDE)
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
                                         scale_factor=(1., 1.), img_id=0))
    boxes = torch.tensor([[10., 10., 70., 80.], [50., 60., 120., 120.]])
    masks = np.zeros((2, *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([3, 77]), masks=BitmapMasks(masks, *size))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    sample.gt_sem_seg = PixelData(sem_seg=torch.randint(0, 133, (1, *size)))
    return sample


@pytest.mark.parametrize('name', FAST + [pytest.param(name, marks=pytest.mark.slow) for name in SLOW])
def test_training_step_and_prediction(name):
    from mmdet.registry import MODELS
    cfg = load_config(make_parser('').parse_args([str(ROOT / f'{name}.py')]))
    leave_out_weights(cfg)
    cfg.model.backbone.update(base_channels=8)
    cfg.model.neck.in_channels = [32, 64, 128, 256]
    for part in (cfg.model.test_cfg, cfg.model.test_cfg.get('rcnn')):
        if part and 'score_thr' in part:
            part.score_thr = 0.  # boxes of random weights count, too
    assert cfg.model.neck.type == 'plugconv_mm.HorFPN'
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, _scope_='mmdet'))
    model.init_weights()
    model.train()
    images = torch.randn(1, 3, SIDE, SIDE)

    losses, _ = model.parse_losses(model.loss(images, [sample()]))
    losses.backward()
    assert losses.isfinite()
    convs = model.neck.fpn_convs
    for conv in convs[:model.neck.backbone_end_level - model.neck.start_level]:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in conv.conv.parameters())
    assert convs[0].conv.dwconv.weight.grad.abs().sum() > 0 if hasattr(convs[0].conv.dwconv, 'weight') else True

    model.eval()
    with torch.no_grad():
        result, = model.predict(images, [sample()])
    predictions = result.pred_panoptic_seg.sem_seg if 'panoptic' in name else result.pred_instances
    assert len(predictions) and 'HorFPN' in repr(model.neck)
