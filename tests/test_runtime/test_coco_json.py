"""Predictions in the format of COCO."""
import io
import json

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain', 'pycocotools'):
    pytest.importorskip(name)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.structures import BaseDataElement, InstanceData, PixelData  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from pycocotools import mask as rle  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402

from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime.coco_json import CocoPredictions  # noqa: E402


def written(predictions):
    file = io.BytesIO()
    predictions.write(file)
    return json.loads(file.getvalue())


def detection(with_masks=True, boxes=None):
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:4, 2:7] = masks[1, 0, 0] = masks[2] = True
    if boxes is None:
        boxes = torch.tensor([[2., 1., 7., 4.], [0., 0., 1., 1.], [0., 0., 8., 6.]])
    instances = InstanceData(bboxes=boxes, scores=torch.tensor([0.5, 0.9, 0.25]), labels=torch.tensor([1, 0, 1]))
    if with_masks:
        instances.masks = masks
    return DetDataSample(pred_instances=instances), masks


@pytest.mark.parametrize('with_masks', [True, False])
def test_detections(with_masks, tmp_path):
    sample, masks = detection(with_masks)
    predictions = CocoPredictions(['cat', 'dog', 'cow'], 0.5)
    predictions.add('empty.jpg', (6, 8), DetDataSample(pred_instances=sample.pred_instances[:0]))
    predictions.add('more/a.jpg', (6, 8), sample)
    found = written(predictions)
    assert found['images'] == [dict(id=1, file_name='empty.jpg', height=6, width=8),
                               dict(id=2, file_name='more/a.jpg', height=6, width=8)]
    assert [(entry['id'], entry['name']) for entry in found['categories']] == [(1, 'cat'), (2, 'dog'), (3, 'cow')]
    first, second = found['annotations']  # the third is below the threshold, the first at it
    assert (first['id'], first['image_id'], first['category_id'], first['score']) == (1, 2, 2, 0.5)
    assert first['bbox'] == [2, 1, 5, 3] and second['bbox'] == [0, 0, 1, 1] and second['category_id'] == 1
    assert ('segmentation' in first, 'area' in first) == (with_masks, with_masks)
    if with_masks:
        assert first['area'] == 15 and (rle.decode(first['segmentation']) == masks[0].numpy()).all()
        (tmp_path / 'a.json').write_text(json.dumps(found))
        coco = COCO(str(tmp_path / 'a.json'))
        assert (coco.annToMask(coco.loadAnns(2)[0]) == masks[1].numpy()).all()
    assert len(sample.pred_instances) == 3


def test_boxes_of_masks():
    """A detector without boxes, as SOLOv2, has zeros in their place."""
    sample, _ = detection(boxes=torch.zeros(3, 4))
    predictions = CocoPredictions(None, 0)
    predictions.add('a.jpg', (6, 8), sample)
    found = written(predictions)
    assert [entry['bbox'] for entry in found['annotations']] == [[2, 1, 5, 3], [0, 0, 1, 1], [0, 0, 8, 6]]
    assert [entry['name'] for entry in found['categories']] == ['class 0', 'class 1']


def test_label_maps():
    labels = torch.tensor([[0, 2, 2], [0, 2, 0]])
    predictions = CocoPredictions(['sky', 'sea', 'sand'], 0.99)
    predictions.add('a.jpg', (2, 3), SegDataSample(pred_sem_seg=PixelData(data=labels[None])))
    sky, sand = written(predictions)['annotations']
    assert (sky['category_id'], sky['area'], sand['category_id'], sand['area']) == (1, 3, 3, 3)
    assert (rle.decode(sand['segmentation']) == (labels == 2).numpy()).all() and 'score' not in sand


def test_panoptic_segments():
    from mmdet.evaluation import INSTANCE_OFFSET
    segments = torch.tensor([[INSTANCE_OFFSET, 2 * INSTANCE_OFFSET, 1], [INSTANCE_OFFSET, 2, 1]])  # 2 is void
    predictions = CocoPredictions(['cat', 'grass'], 0.5)
    predictions.add('a.jpg', (2, 3), DetDataSample(pred_panoptic_seg=PixelData(sem_seg=segments[None])))
    found = written(predictions)['annotations']
    assert sorted((entry['category_id'], entry['area']) for entry in found) == [(1, 1), (1, 2), (2, 2)]
    assert sum(rle.decode(entry['segmentation']).astype(int) for entry in found).tolist() == [[1, 1, 1], [1, 0, 1]]


def test_classes():
    predictions = CocoPredictions(['cat', 'dog'], 0.99)
    predictions.add('a.jpg', (2, 3), DataSample().set_pred_score(torch.tensor([0.25, 0.75])).set_pred_label(1))
    assert written(predictions)['annotations'] == [dict(id=1, image_id=1, category_id=2, score=0.75)]


def test_what_is_none_of_these():
    with pytest.raises(ConfigError, match='not feats'):
        CocoPredictions(None, 0.5).add('a.jpg', (2, 3), BaseDataElement(feats=np.zeros(3)))
