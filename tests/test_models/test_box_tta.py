"""Boxes of several views, merged; masks are left out."""
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from plugconv_mm.models import BoxTTAModel  # noqa: E402


class Detector(torch.nn.Module):
    def test_step(self, data):
        raise NotImplementedError


def view(flip, box, masks):
    sample = DetDataSample(metainfo=dict(ori_shape=(40, 100), flip=flip, flip_direction='horizontal'))
    extra = dict(masks=torch.ones(1, 40, 100)) if masks else {}
    sample.pred_instances = InstanceData(bboxes=torch.tensor([box]), scores=torch.tensor([0.9 if flip else 0.8]),
                                         labels=torch.tensor([3]), **extra)
    return sample


@pytest.mark.parametrize('masks', [True, False])
def test_boxes_are_merged(masks):
    model = BoxTTAModel(tta_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5), module=Detector())
    merged, = model.merge_preds([[view(False, [10., 5., 30., 25.], masks), view(True, [70., 5., 90., 25.], masks)]])
    assert merged.pred_instances.bboxes.tolist() == [[10., 5., 30., 25.]] and 'masks' not in merged.pred_instances
    assert merged.pred_instances.scores.tolist() == pytest.approx([0.9])
