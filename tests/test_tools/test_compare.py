"""The command that compares models."""
import json
from pathlib import Path

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from repository import tool  # noqa: E402

from plugconv_mm.analysis.paper_comparisons import PUBLISHED  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
main = tool('analysis_tools/compare').main


def cells(line):
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_a_segmentor_beside_a_detector(capsys, tmp_path):
    main([SEGMENTOR, DETECTOR, '--shape', '33', '64', '--rounds', '2', '--backend', 'gemm', '--out', str(tmp_path)])
    text = capsys.readouterr().out
    assert 'round 2 of 2' in text
    markdown = (tmp_path / 'compare.md').read_text()
    assert markdown in text
    rows = [cells(line) for line in markdown.splitlines() if line.startswith('|')]
    assert {len(row) for row in rows} == {8}
    assert [row[0] for row in rows[2:]] == [Path(SEGMENTOR).stem, '- backbone', '- head',
                                            Path(DETECTOR).stem, '- backbone', '- neck', '- head']
    written = json.loads((tmp_path / 'compare.json').read_text())
    assert written['rounds'] == 2 and written['threads'] >= 1
    segmentor, detector = written['models']
    assert detector['shape'] == [64, 64] and segmentor['shape'] == [33, 64]  # the detector pads to multiples of 32
    assert segmentor['backends'] == detector['backends'] == {'gemm': 8}
    assert len(segmentor['whole']['milliseconds']) == 2
    assert rows[2][1] == f'{segmentor["whole"]["params"] / 1e6:.2f}' and rows[2][5] == '1.00'
    image = (tmp_path / 'compare.png').read_bytes()
    assert image.startswith(b'\x89PNG') and len(image) > 10_000


def test_sets_name_configs_that_can_be_read():
    assert {'parcnet', 'parc-resnet', 'parc-convnext', 'kw-resnet50', 'horfpn', 'slak'} <= set(PUBLISHED)
    for item in PUBLISHED.values():
        assert len(item.configs) >= 2
        for config in item.configs.values():
            assert load_config(make_parser('', runs=False).parse_args([config])).model.backbone.type


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_a_set_by_its_name(name, capsys):
    main(['--sets', name, '--rounds', '1', '--shape', '64', '64'])
    text = capsys.readouterr().out
    assert PUBLISHED[name].about in text
    rows = {cells(line)[0]: cells(line) for line in text.splitlines() if line.startswith('|')}
    for model in PUBLISHED[name].configs:
        assert float(rows[model][1]) > 0 and float(rows[model][2]) > 0 and float(rows[model][3]) > 0


@pytest.mark.parametrize('options, said', [
    ([], 'give either configs or --sets'),
    ([SEGMENTOR, '--sets', 'slak'], 'give either configs or --sets'),
    ([SEGMENTOR], '--shape H W says how large the images are'),
    ([SEGMENTOR, '--shape', '0', '10'], '--shape should be at least 1, got [0, 10]'),
    ([SEGMENTOR, '--shape', '8', '8', '--batch', '0'], '--batch should be at least 1, got 0'),
])
def test_usage(options, said, capsys):
    with pytest.raises(SystemExit):
        main(options)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('options, said', [
    (['configs/none.py'], 'there is no config configs/none.py'),
    (['mmpretrain::resnet/resnet51_8xb32_in1k.py'], 'Did you mean resnet50_8xb32_in1k.py'),
    (['mmnothing::resnet.py'], 'is a config of mmnothing, which is not installed'),
    (['mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'], 'MAE, whose task is not supported'),
    ([SEGMENTOR, SEGMENTOR], 'a config is given twice'),
    ([SEGMENTOR, '--device', 'cuda:77'], '--device cuda:77 cannot be used'),
])
def test_mistakes(options, said):
    with pytest.raises(SystemExit, match=said):
        main([*options, '--shape', '64', '64'])
