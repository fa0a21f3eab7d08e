"""The command that prints the cost of a config."""

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from repository import tool  # noqa: E402

SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
main = tool('analysis_tools/get_flops').main


def figures(text, row):
    return [float(value) for value in text.split(row)[1].split('\n')[0].split()]


def test_segmentor(capsys):
    main([SEGMENTOR, '--shape', '160', '160'])
    text = capsys.readouterr().out
    assert f'{SEGMENTOR}, an image of 160x160\n' in text
    backbone, neck, head, everything = figures(text, 'multiply-adds (G)')
    assert neck == 0 and everything == pytest.approx(backbone + head, abs=2e-3)
    assert figures(text, 'parameters (M)')[3] == pytest.approx(1.5, abs=0.5)
    assert 'ParC as spatial:' in text and 'ParC as fft:' in text and 'FFT (G)' in text


def test_detector_is_padded_and_takes_options(capsys):
    config = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
    main([config, '--shape', '150', '--cfg-options', 'model.backbone.parc_backend=spatial'])
    text = capsys.readouterr().out
    assert 'an image of 150x150, padded to 160x160' in text and 'FFT (G)' not in text


def test_mistakes(capsys):
    with pytest.raises(SystemExit, match='there is no config configs/none.py'):
        main(['configs/none.py'])
    with pytest.raises(SystemExit):
        main([SEGMENTOR, '--shape', '1', '2', '3'])
    assert 'takes a height and a width in pixels, got [1, 2, 3]' in capsys.readouterr().err
