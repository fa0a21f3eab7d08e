"""Predictions on images, prepared as the test of a config prepares them."""
import cv2
import numpy as np
import pytest

for name in ('mmdet', 'mmpretrain'):
    pytest.importorskip(name)

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402

from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime.build import build_model  # noqa: E402
from plugconv_mm.runtime.prediction import Predictor  # noqa: E402


def config(**dataset):
    dataset = dict(type='CustomDataset', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', scale=(24, 16)),
        dict(type='PackInputs')], **dataset)
    return Config(dict(
        default_scope='mmpretrain',
        model=dict(type='ImageClassifier', data_preprocessor=dict(num_classes=3, mean=[100.] * 3, std=[50.] * 3),
                   backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
                   neck=dict(type='GlobalAveragePooling'),
                   head=dict(type='LinearClsHead', num_classes=3, in_channels=64, topk=(1, ))),
        test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[dataset, dict(type='CustomDataset')]))))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return path


def test_the_same_as_by_hand(image):
    cfg = config()
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    sample = Predictor(cfg, model)(image)
    resized = cv2.resize(cv2.imread(str(image)), (24, 16))
    x = (torch.from_numpy(resized).permute(2, 0, 1)[None].float() - 100) / 50
    with torch.no_grad():
        scores = model(x).softmax(1)[0] if model(x).ndim == 2 else model.head(model.extract_feat(x)).softmax(1)[0]
    torch.testing.assert_close(sample.pred_score, scores)
    assert sample.pred_label.tolist() == [int(scores.argmax())] and sample.ori_shape == (40, 60)
    assert not sample.pred_score.requires_grad


@pytest.mark.parametrize('load', [{}, dict(to_float32=True)], ids=str)
def test_an_image_that_was_read_already(load, image):
    cfg = config()
    cfg.test_dataloader.dataset.datasets[0].pipeline[0].update(load)
    predictor = Predictor(cfg, build_model(cfg).eval())
    sample, of_file = predictor(cv2.imread(str(image))[..., ::-1]), predictor(image)
    torch.testing.assert_close(sample.pred_score, of_file.pred_score)
    assert sample.ori_shape == of_file.ori_shape == (40, 60)


def test_an_image_in_the_place_of_no_file():
    cfg = config()
    cfg.test_dataloader.dataset.datasets[0].pipeline[0].color_type = 'grayscale'
    with pytest.raises(ConfigError, match='begins with LoadImageFromFile, in colour'):
        Predictor(cfg, torch.nn.Identity())(np.zeros((8, 8, 3), np.uint8))


def test_a_config_that_says_not_how():
    cfg = config()
    cfg.test_dataloader = None
    with pytest.raises(ConfigError, match='has no test_dataloader with a dataset.pipeline'):
        Predictor(cfg, torch.nn.Identity())
