import pytest

pytest.importorskip('matplotlib')
pytest.importorskip('mmengine')

import tiny_training  # noqa: E402
from repository import tool  # noqa: E402

from plugconv_mm.visualization import read_sparsity  # noqa: E402


def plot(*arguments):
    tool('analysis_tools/plot_sparsity').main([str(argument) for argument in arguments])


def pixels(path):
    import cv2
    return cv2.imread(str(path))


def test_log_and_checkpoints_tell_the_same(tmp_path, capsys):
    cfg = tiny_training.config()
    cfg.custom_hooks[0].update_frequency = 3  # with every epoch
    tiny_training.build(tmp_path / 'work', cfg).train()
    files = sorted((tmp_path / 'work').glob('epoch_*.pth'))
    log, checkpoints = read_sparsity(tmp_path / 'work'), read_sparsity(files)
    assert [i for i, _ in log['density']['all']] == [0, 3, 6]
    for figure, groups in checkpoints.items():
        assert groups.keys() == log[figure].keys() and len(groups) > 4
        for group, points in groups.items():
            assert points[:2] == log[figure][group][1:]
    assert [i for i, _ in checkpoints['turnover']['all']] == [3, 6, 9]
    assert checkpoints['turnover']['all'][-1] == (9, 0.)  # nothing changes places at the end

    plot(tmp_path / 'work')
    plot(*files, '--out', tmp_path / 'other.png')
    assert f'wrote {tmp_path / "work" / "sparsity.png"}' in capsys.readouterr().out
    for path in (tmp_path / 'work/sparsity.png', tmp_path / 'other.png'):
        assert pixels(path).std() > 10


def test_mistakes(tmp_path):
    with pytest.raises(SystemExit, match='error: .* holds no .*scalars.json'):
        plot(tmp_path)
    with pytest.raises(SystemExit, match='there is no checkpoint'):
        plot(tmp_path / 'epoch_1.pth')
    cfg = tiny_training.config()
    cfg.custom_hooks = []
    tiny_training.build(tmp_path, cfg).train()
    with pytest.raises(SystemExit, match='was DynamicSparsityHook in the config'):
        plot(tmp_path)
    with pytest.raises(SystemExit, match='has no masks'):
        plot(tmp_path / 'epoch_1.pth')
