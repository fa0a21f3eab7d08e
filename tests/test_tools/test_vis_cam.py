"""The command that draws Grad-CAM, and what it computes."""
import importlib.util
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

for name in ('mmdet', 'mmseg', 'mmpretrain', 'pytorch_grad_cam'):
    pytest.importorskip(name)

from repository import tool  # noqa: E402

from plugconv_mm.analysis.grad_cam import box_score, class_score, grad_cam, region_score  # noqa: E402
from plugconv_mm.errors import ConfigError  # noqa: E402

SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
vis_cam = tool('analysis_tools/vis_cam')
main = vis_cam.main


@pytest.fixture
def image(tmp_path):
    file = tmp_path / 'image.png'
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))
    return str(file)


class Quadrants(nn.Module):
    """A classifier of two classes: how red the left half is, how red the right half is."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 2, 1, bias=False)
        nn.init.eye_(self.backbone.weight[:, :, 0, 0])

    def head(self, feats):
        left, right = feats[-1].relu().chunk(2, dim=3)
        return torch.stack((left[:, 0].mean(), right[:, 0].mean()))[None]

    def decode_head(self, feats):
        return feats[-1]


def spots():
    """Bright at two places, one in each half."""
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, 2, 1] = 1
    image[0, 0, 5, 6] = 2
    return image


def test_the_map_shows_what_speaks_for_the_class():
    found, score = grad_cam(Quadrants(), spots(), class_score(1))
    assert found.shape == (8, 8) and found.min() == 0 and found.max() == pytest.approx(1, abs=1e-2)
    assert np.unravel_index(found.argmax(), found.shape) == (5, 6)
    assert score == pytest.approx(2 / 32)
    named, _ = grad_cam(Quadrants(), spots(), class_score(1), layer='backbone')
    np.testing.assert_array_equal(found, named)


def test_of_a_segmentor_where_it_sees_the_class():
    image = spots()
    image[0, 1, 0, 0] = 5  # class 1 is seen there, class 0 elsewhere, but for ties
    _, score = grad_cam(Quadrants(), image, region_score(1))
    assert score == pytest.approx(5)
    image[0, 1] = -1
    _, score = grad_cam(Quadrants(), image, region_score(1))  # seen nowhere
    assert score == pytest.approx(-1)


def test_of_a_detector_of_one_stage_in_the_box():
    from mmdet.models import RetinaHead

    class Detector(nn.Module):

        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 1)
            self.bbox_head = RetinaHead(3, 4, stacked_convs=1, feat_channels=4)
            self.scores = [torch.arange(9 * 3 * 64.).reshape(1, 27, 8, 8), torch.full((1, 27, 4, 4), -1.)]
            self.bbox_head.forward = lambda feats: (self.scores, None)

    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = Detector()
    score = box_score(1, (8, 16, 31, 23))  # columns 1 to 3, rows 2 to 2 of the first level
    value = score(detector, (torch.zeros(1, 4, 8, 8), ), torch.zeros(1, 3, 64, 64))
    assert value == (8 * 3 + 1) * 64 + 2 * 8 + 3  # of the last prior, the class 1, at the last place in the box
    with pytest.raises(ConfigError, match='there is no class 3: the model knows 3, from 0 to 2'):
        box_score(3, (0, 0, 8, 8))(detector, (torch.zeros(1, 4, 8, 8), ), torch.zeros(1, 3, 64, 64))


def test_layers_that_do_not_serve():
    with pytest.raises(ConfigError, match='the model has no layer backbone.layer9'):
        grad_cam(Quadrants(), spots(), class_score(0), layer='backbone.layer9')
    model = Quadrants()
    model.head = lambda feats: feats[-1].mean((2, 3))
    model.backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.head = lambda feats: feats[-1]
    with pytest.raises(ConfigError, match=r'the last output of the backbone is no map but of shape \(1, 2\).*--layer'):
        grad_cam(model, spots(), class_score(0))


def test_a_layer_that_runs_on_several_maps():
    """Its first map and the gradients of another would be taken together."""
    model = Quadrants()
    model.shared = nn.Conv2d(2, 2, 1)
    model.head = lambda feats: (model.shared(feats[-1]) + model.shared(feats[-1] * 2)).mean((2, 3))
    with pytest.raises(ConfigError, match='shared runs 2 times in one pass'):
        grad_cam(model, spots(), class_score(0), layer='shared')


def test_classes_whose_names_are_numbers():
    model = object.__new__(vis_cam.Model)
    model.config, model.classes = 'x.py', ['background', '0', '1']
    assert model.category('1') == 2 and model.category('2') == 2


def test_a_detector_and_its_box(image, tmp_path, capsys):
    out = tmp_path / 'cam.png'
    main([DETECTOR, '--images', image, '--box', '20', '20', '60', '80', '--class', 'seven', '--out', str(out)])
    assert re.search(r'image.png  \S+  seven  score -?\d', capsys.readouterr().out)
    assert cv2.imread(str(out)).shape[1] > 2 * 300  # the image and a map


def test_a_segmentor_beside_itself_with_a_checkpoint(image, tmp_path, capsys):
    from mmengine.config import Config

    from plugconv_mm.runtime.build import build_task
    torch.manual_seed(1)
    model, _ = build_task(Config.fromfile(SEGMENTOR), SEGMENTOR)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=[*'abcdefghijk']))),
               tmp_path / 'weights.pth')
    out = tmp_path / 'cam.png'
    main([SEGMENTOR, SEGMENTOR, '--images', image, '--checkpoint', 'none', str(tmp_path / 'weights.pth'), '--class',
          '7', '--names', 'random', 'other', '--out', str(out)])
    printed = capsys.readouterr().out
    scores = re.findall(r'  (random|other)  (\w+)  score (\S+)', printed)
    assert [score[:2] for score in scores] == [('random', 'six'), ('other', 'h')]  # 0 is the background
    assert scores[0][2] != scores[1][2]
    assert cv2.imread(str(out)).shape[1] > 3 * 300


def test_a_classifier_by_its_own_best_class(image, tmp_path, capsys):
    config = tmp_path / 'classifier.py'
    config.write_text(
        "custom_imports = dict(imports=['plugconv_mm'])\ndefault_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', backbone=dict(type='plugconv_mm.ParCResNet', depth=50, base_channels=8,\n"
        "             out_indices=(3, )), neck=dict(type='GlobalAveragePooling'),\n"
        "             head=dict(type='LinearClsHead', num_classes=5, in_channels=256),\n"
        "             data_preprocessor=dict(num_classes=5, mean=[120] * 3, std=[60] * 3, to_rgb=True))\n"
        "test_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[dict(\n"
        "    type='CustomDataset', metainfo=dict(classes=list('vwxyz')),\n"
        "    pipeline=[dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=64),\n"
        "              dict(type='PackInputs')])]))\n")
    out = tmp_path / 'cam.png'
    main([str(config), '--images', image, '--layer', 'backbone.layer3', '--out', str(out)])
    assert re.search(r'  classifier  [v-z]  score', capsys.readouterr().out)
    with pytest.raises(SystemExit, match='knows no class a; it knows v, w, x, y, z'):
        main([str(config), '--images', image, '--class', 'a', '--out', str(out)])
    with pytest.raises(SystemExit, match='there is no class 5: the model knows 5, from 0 to 4'):
        main([str(config), '--images', image, '--class', '5', '--out', str(out)])
    with pytest.raises(SystemExit, match='the model has no layer backbone.layer9; beside it are .*backbone.layer1'):
        main([str(config), '--images', image, '--layer', 'backbone.layer9', '--out', str(out)])
    with pytest.raises(SystemExit, match='the configs are of several tasks: classifier, segmentor'):
        main([str(config), SEGMENTOR, '--images', image, '--out', str(out)])


def test_grad_cam_that_is_not_there(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == 'pytorch_grad_cam' else
                        found(name, *args))
    with pytest.raises(ConfigError, match=r"needs the package grad-cam: pip install 'plugconv-mm\[analysis\]'"):
        grad_cam(Quadrants(), spots(), class_score(0))


def test_mistakes(image, tmp_path):
    with pytest.raises(SystemExit, match='for a detector, --box X1 Y1 X2 Y2 and --class say what to explain'):
        main([DETECTOR, '--images', image])
    with pytest.raises(SystemExit, match='for a segmentor, --class says what to explain'):
        main([SEGMENTOR, '--images', image])
    with pytest.raises(SystemExit, match='the box is outside'):
        main([DETECTOR, '--images', image, '--class', '1', '--box', '170', '5', '190', '20'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SystemExit, match='empty holds no image'):
        main([SEGMENTOR, '--images', str(tmp_path / 'empty')])
    (tmp_path / 'broken.png').write_bytes(b'')
    with pytest.raises(SystemExit, match='broken.png cannot be read as an image'):
        main([SEGMENTOR, '--images', str(tmp_path / 'broken.png')])
    with pytest.raises(SystemExit, match='is a DETR, whose task is not supported'):
        main(['mmdet::detr/detr_r50_8xb2-150e_coco.py', '--images', image])


@pytest.mark.parametrize('options, said', [
    (['--box', '5', '5', '5', '9'], '--box takes X1 Y1 X2 Y2 with X1 < X2 and Y1 < Y2, got [5.0, 5.0, 5.0, 9.0]'),
    (['--num', '0'], '--num should be at least 1, got 0'),
    (['--checkpoint', 'a', 'b'], '--checkpoint takes one for each of the 1 configs, got 2'),
    (['--out', 'cam.jpg'], '--out should end in .png'),
])
def test_usage(options, said, capsys):
    with pytest.raises(SystemExit):
        main([SEGMENTOR, '--images', 'x', *options])
    assert said in capsys.readouterr().err
