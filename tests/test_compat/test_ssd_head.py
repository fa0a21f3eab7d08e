"""mmdet's SSD head predicts."""
import pytest
import torch

mmdet = pytest.importorskip('mmdet', reason='mmdet is not installed')

import plugconv_mm  # noqa: E402, F401


def ssd_head(**kwargs):
    from mmdet.models.dense_heads import SSDHead
    from mmengine.config import ConfigDict
    return SSDHead(
        num_classes=3, in_channels=(8, 16), anchor_generator=dict(
            type='SSDAnchorGenerator', scale_major=False, strides=[8, 16], ratios=[[2], [2, 3]], min_sizes=[10, 20],
            max_sizes=[20, 30]),
        test_cfg=ConfigDict(nms_pre=50, nms=dict(type='nms', iou_threshold=0.5), min_bbox_size=0, score_thr=0.,
                            max_per_img=10), **kwargs)


def test_it_predicts():
    torch.manual_seed(0)
    head = ssd_head().eval()
    head.init_weights()
    maps = torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)
    scores, boxes = head(maps)
    result, = head.predict_by_feat(scores, boxes, batch_img_metas=[dict(img_shape=(64, 64), scale_factor=(1., 1.))])
    assert len(result) == 10 and result.bboxes.isfinite().all() and set(result.labels.tolist()) <= {0, 1, 2}
    # The best of all boxes is a probability of the head's, of no background.
    best = max(score.view(1, -1, 4, *score.shape[2:]).softmax(2)[:, :, :3].max() for score in scores)
    torch.testing.assert_close(result.scores[0], best)


def test_a_loss_of_a_child_stays():
    from mmdet.models.dense_heads import SSDHead

    class Child(SSDHead):

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.loss_cls = torch.nn.Identity()

    child = Child(**{key: getattr(ssd_head(), key) for key in ('num_classes', 'in_channels')}, anchor_generator=dict(
        type='SSDAnchorGenerator', scale_major=False, strides=[8, 16], ratios=[[2], [2]], min_sizes=[10, 20],
        max_sizes=[20, 30]))
    assert isinstance(child.loss_cls, torch.nn.Identity)
