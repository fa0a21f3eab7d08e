"""The command that measures receptive fields."""
import json

import cv2
import numpy as np
import pytest
import torch

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from repository import tool  # noqa: E402

SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
SMALL = ['--size', '64', '--num', '2']
main = tool('analysis_tools/erf').main


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for i, shape in enumerate(((40, 60, 3), (64, 64, 3), (30, 30, 3))):
        cv2.imwrite(str(folder / f'{i}.png'), np.random.default_rng(i).integers(0, 255, shape, np.uint8))
    return folder


def backbone_config(path, **settings):
    """A bare backbone, of our registry if nothing else is said."""
    if 'type' not in settings:
        settings = dict(type='plugconv_mm.ParCResNet', depth=50, base_channels=8) | settings
    path.write_text(f"custom_imports = dict(imports=['plugconv_mm'])\nmodel = {settings!r}\n")
    return str(path)


def result(out):
    return json.loads(out.with_suffix('.json').read_text())


def test_a_segmentor_beside_a_detector_on_images(capsys, tmp_path, folder):
    out = tmp_path / 'erf.png'
    main([SEGMENTOR, DETECTOR, *SMALL, '--images', str(folder), '--names', 'one', 'two', '--out', str(out)])
    captured = capsys.readouterr()
    assert '2/2' in captured.err  # the progress bar
    found = result(out)
    assert found['num'] == 2 and list(found['models']) == ['one', 'two']
    for row in found['models'].values():
        assert 0 < row['ratios'][0] <= row['ratios'][1] <= row['ratios'][2] <= row['ratios'][3] <= 1
    assert out.with_suffix('.md').read_text() in captured.out
    assert captured.out.count('\n| one |') == 1
    assert out.read_bytes().startswith(b'\x89PNG')


def test_stages_grow(tmp_path):
    config, out, sides = backbone_config(tmp_path / 'config.py', parc_blocks=(0, 0, 0, 0)), tmp_path / 'erf.png', []
    for stage in ('0', '1'):
        main([config, *SMALL, '--open-branches', '--stage', stage, '--out', str(out)])
        sides.append(result(out)['models']['config']['sides'][3])
    assert sides[0] < sides[1]


def test_open_branches(tmp_path):
    config, out, ratios = backbone_config(tmp_path / 'config.py'), tmp_path / 'erf.png', []
    for options in ([], ['--open-branches']):
        main([config, *SMALL, '--stage', '1', *options, '--out', str(out)])
        ratios.append(result(out)['models']['config']['ratios'][2])
    assert ratios[0] < ratios[1]  # the last norm of each bottleneck begins at zero


def test_a_backbone_of_mmpretrain(tmp_path):
    config, out = backbone_config(tmp_path / 'config.py', type='mmpretrain.ConvNeXt', arch=dict(
        depths=[1, 1, 1, 1], channels=[4, 8, 8, 8]), gap_before_final_norm=False), tmp_path / 'erf.png'
    main([config, *SMALL, '--stage', '1', '--open-branches', '--out', str(out)])
    assert 0 < result(out)['models']['config']['sides'][0] < 64


def test_the_neck(tmp_path):
    out = tmp_path / 'erf.png'
    main([DETECTOR, *SMALL, '--part', 'neck', '--stage', '3', '--out', str(out)])
    assert result(out)['part'] == 'neck'


def test_a_checkpoint_counts(tmp_path):
    from plugconv_mm.registry import MODELS
    config, out = backbone_config(tmp_path / 'config.py'), tmp_path / 'erf.png'
    backbone = MODELS.build(dict(type='plugconv_mm.ParCResNet', depth=50, base_channels=8, zero_init_residual=False))
    torch.save(backbone.state_dict(), tmp_path / 'weights.pth')
    ratios = []
    for checkpoint in ('none', str(tmp_path / 'weights.pth')):
        main([config, *SMALL, '--checkpoint', checkpoint, '--out', str(out)])
        ratios.append(result(out)['models']['config']['ratios'])
    assert ratios[0] != ratios[1]


def test_a_model_of_timm(tmp_path):
    pytest.importorskip('timm')
    out = tmp_path / 'erf.png'
    main(['timm::resnet10t', '--size', '64', '--num', '1', '--stage', '1', '--out', str(out)])
    assert result(out)['models']['resnet10t']['sides'][3] < 64
    with pytest.raises(SystemExit, match='has no model resnet10x'):
        main(['timm::resnet10x', '--out', str(out)])
    with pytest.raises(SystemExit, match='there is no stage 9'):
        main(['timm::resnet10t', '--size', '64', '--stage', '9', '--out', str(out)])


def test_timm_that_is_not_there(monkeypatch):
    import importlib.util
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == 'timm' else found(name, *args))
    with pytest.raises(SystemExit, match=r"needs timm: pip install 'plugconv-mm\[analysis\]'"):
        main(['timm::resnet18'])


def test_mistakes_with_images(tmp_path, folder):
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(SystemExit, match='empty holds no image: none of its files ends in .bmp'):
        main([SEGMENTOR, '--images', str(empty)])
    with pytest.raises(SystemExit, match='there is no image or folder of images none'):
        main([SEGMENTOR, '--images', 'none'])
    (folder / '1.png').write_bytes(b'no image')
    with pytest.raises(SystemExit, match='1.png cannot be read as an image'):
        main([SEGMENTOR, '--images', str(folder)])


def test_mistakes_with_models(tmp_path):
    config = backbone_config(tmp_path / 'config.py')
    with pytest.raises(SystemExit, match=r'has no stage 7: plugconv_mm.ParCResNet does not take out_indices=\(7, \)'):
        main([config, '--stage', '7'])
    with pytest.raises(SystemExit, match='stages 0 to 3; there is no stage 4'):
        main([DETECTOR, *SMALL, '--part', 'neck', '--stage', '4'])
    with pytest.raises(SystemExit, match='has no model.neck'):
        main([config, '--part', 'neck'])
    with pytest.raises(SystemExit, match='has no model.backbone whose receptive field could be measured'):
        main(['mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'])
    with pytest.raises(SystemExit, match='two models have the same name'):
        main([config, config])


def test_a_stage_that_the_checkpoint_was_not_trained_for(tmp_path):
    """Its norm of outputs is not among the weights, and stays as it is."""
    from plugconv_mm.registry import MODELS
    settings = dict(
        type='plugconv_mm.ParCConvNeXt', arch=dict(channels=[8] * 4, depths=[1] * 4), parc_blocks=(0, 0, 1, 0),
        layer_scale_init=1.)
    trained = MODELS.build(settings | dict(out_indices=(3, )))
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'b.pth')
    config = backbone_config(tmp_path / 'config.py', **settings, out_indices=(3, ))
    out = tmp_path / 'erf.png'
    main([config, '--checkpoint', str(tmp_path / 'b.pth'), '--stage', '1', *SMALL, '--out', str(out)])
    assert result(out)['stage'] == 1


def test_images_of_a_size_that_timm_does_not_take(tmp_path):
    pytest.importorskip('timm')
    with pytest.raises(SystemExit, match='does not take images of 64x64: .*224.*; give another --size'):
        main(['timm::vit_tiny_patch16_224', *SMALL])


def test_mistakes_with_checkpoints(tmp_path):
    config = backbone_config(tmp_path / 'config.py')
    with pytest.raises(SystemExit, match='there is no checkpoint none.pth'):
        main([config, '--checkpoint', 'none.pth'])
    (tmp_path / 'text.pth').write_text('no checkpoint')
    with pytest.raises(SystemExit, match='text.pth'):
        main([config, '--checkpoint', str(tmp_path / 'text.pth')])
    from plugconv_mm.registry import MODELS
    other = MODELS.build(dict(type='plugconv_mm.ParCResNet', depth=50, base_channels=16))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    with pytest.raises(SystemExit, match='other.pth is a checkpoint of another model .* have another shape, e.g.'):
        main([config, '--checkpoint', str(tmp_path / 'other.pth')])


@pytest.mark.parametrize('options, said', [
    ([SEGMENTOR, '--size', '1'], '--size should be at least 2, got 1'),
    ([SEGMENTOR, '--stage', '-1'], '--stage should be at least 0, got -1'),
    ([SEGMENTOR, '--names', 'a', 'b'], '--names takes one for each of the 1 configs, got 2'),
    ([SEGMENTOR, '--out', 'erf.jpg'], '--out should end in .png, got erf.jpg'),
])
def test_usage(options, said, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert said in capsys.readouterr().err
