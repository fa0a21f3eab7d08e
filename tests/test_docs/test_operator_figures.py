"""The images of the operators show receptive fields of known extent."""
import functools
import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('matplotlib')

from plugconv_mm.analysis.receptive_field import square_sides  # noqa: E402

ROOT = Path(__file__).parents[2]
script = runpy.run_path(str(ROOT / 'tools/misc/draw_operators.py'))
FIGURES, field, main = script['FIGURES'], script['field'], script['main']


def support(figure, panel, size, number=4):
    """Where there is a contribution, of enough channels that none is cut at zero by chance."""
    return field(figure, panel, size=size, channels=32, number=number) > 0


def box(size, height, width=None):
    """True in a centred rectangle."""
    mask, centre = np.zeros((size, size), bool), size // 2
    height, width = height // 2, (width or height) // 2
    mask[max(centre - height, 0):centre + height + 1, max(centre - width, 0):centre + width + 1] = True
    return mask


def everything(size):
    return np.ones((size, size), bool)


def blocks(size, side):
    """The 2x2, 4x4 and 8x8 blocks that the centred square of this side lies in."""
    mask, (rows, columns) = np.zeros((size, size), bool), box(size, side).nonzero()
    for block in (2, 4, 8):
        for row, column in {(r // block * block, c // block * block) for r, c in zip(rows, columns, strict=True)}:
            mask[row:row + block, column:column + block] = True
    return mask


def cross(size):
    return box(size, 51, 5) | box(size, 5, 51)


def crosses(size):
    """All that two crosses in turn reach; zeros beyond the map pass nothing on."""
    mask, centre = np.zeros((size, size), bool), size // 2
    for row, column in np.argwhere(cross(size)):
        for high, wide in ((25, 2), (2, 25)):
            mask[max(row - high, 0):row + high + 1, max(column - wide, 0):column + wide + 1] = True
    assert mask[centre].all() and not mask.all()
    return mask


@pytest.mark.parametrize('figure, panel, size, expected', [
    ('parc', 'ParC-H', 20, lambda size: box(size, size, 1)),
    ('parc', 'ParC-W', 20, lambda size: box(size, 1, size)),
    ('parc', 'ParC-H and ParC-W, half the channels each', 20, lambda size: box(size, size, 1) | box(size, 1, size)),
    ('parc', 'ParC-H, then ParC-W', 20, everything),
    ('gnconv', '7×7', 20, lambda size: box(size, 7)),
    ('gnconv', 'two of them in turn', 20, lambda size: box(size, 13)),
    ('gnconv', 'global filter, weights of 56×29', 20, everything),
    ('large_kernel', '7×7 depthwise convolution', 20, lambda size: box(size, 7)),
    ('large_kernel', '51×5 + 5×51 + 5×5', 56, cross),
    ('large_kernel', 'two of them in turn', 56, crosses),
    ('kernel_warehouse', '3×3 convolution', 16, lambda size: box(size, 3)),
    ('kernel_warehouse', 'KernelWarehouse 3×3, τ = 1', 16, lambda size: box(size, 3)),
    ('kernel_warehouse', 'KernelWarehouse 3×3, τ = 0', 16, everything),
    ('kernel_warehouse', 'two of them in turn', 16, everything),
    # the window of the centre, position (12, 12) of windows that begin at 0, 8 and 16
    ('hmhsa', 'first step, G = 8', 24, lambda size: np.kron(np.eye(3)[1][:, None] * np.eye(3)[1], np.ones((8, 8))) > 0),
    ('hmhsa', 'both steps, r = 4', 24, everything),
    ('hmhsa', 'G = 1, plain attention', 24, everything),
    ('horfpn', 'FPN, through the finest map', 24, lambda size: box(size, 3)),
    ('horfpn', 'HorFPN 7×7, through the finest map', 24, lambda size: box(size, 7)),
    ('horfpn', 'HorFPN GF, through the finest map', 24, everything),
    ('horfpn', 'FPN', 24, lambda size: blocks(size, 3)),
    ('horfpn', 'HorFPN 7×7', 24, lambda size: blocks(size, 7)),
    ('horfpn', 'HorFPN GF', 24, everything),
])
def test_supports(figure, panel, size, expected):
    np.testing.assert_array_equal(support(figure, panel, size), expected(size))


def test_a_stretched_filter_is_narrower_than_one_of_the_maps_own_size():
    own, stretched = (square_sides(field('gnconv', f'global filter, weights of {weights}', channels=16, number=2),
                                   (0.5, ))[0] for weights in ('56×29', '14×8, stretched'))
    assert stretched < 0.5 * own


def test_all_are_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(main.__globals__, 'field', functools.partial(field, size=16, channels=8, number=1))
    main(['--out', str(tmp_path / 'new' / 'folder')])
    drawn = sorted((tmp_path / 'new' / 'folder').iterdir())
    assert [file.stem for file in drawn] == sorted(FIGURES)
    assert all(file.read_bytes().startswith(b'\x89PNG') for file in drawn)
    assert capsys.readouterr().out.count('written: ') == len(FIGURES)


def test_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setitem(main.__globals__, 'field', functools.partial(field, size=8, channels=8, number=1))
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit, match='cannot write to .*file'):
        main(['--only', 'parc', '--out', str(tmp_path / 'file')])


@pytest.mark.parametrize('name', FIGURES)
def test_the_pages_have_them(name):
    image = ROOT / f'docs/images/operators/{name}.png'
    assert image.stat().st_size < 100_000
    page = (ROOT / f'docs/operators/{name}.md').read_text()
    assert f'(../images/operators/{name}.png)' in page
