"""Latency against multiply-adds and parameters."""
import pytest

pytest.importorskip('matplotlib')
pytest.importorskip('mmengine')

import cv2  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from plugconv_mm.analysis.compare import ComparisonReport, MeasuredCost  # noqa: E402
from plugconv_mm.visualization import plot_costs  # noqa: E402


def test_points_are_at_what_was_measured(tmp_path, monkeypatch):
    reports = [ComparisonReport(name, (64, 96), 2, MeasuredCost(params, macs, times), {}, {})
               for name, params, macs, times in (('small', 2_000_000, 10**9, [1., 2., 3.]),
                                                 ('large', 4_000_000, 3 * 10**9, [4., 5., 6.]))]
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda self, *args, **kwargs: (drawn.append(self),
                                                                          save(self, *args, **kwargs)))
    plot_costs(tmp_path / 'x.png', 'two models', reports)
    left, right = drawn[0].axes
    points = [[(float(bar[0].get_xdata()[0]), float(bar[0].get_ydata()[0])) for bar in ax.containers]
              for ax in (left, right)]
    assert points == [[(1, 2), (3, 5)], [(2, 2), (4, 5)]]  # G multiply-adds, M parameters; median ms
    assert left.get_ylabel() == 'latency of 2 x 64x96 (ms)'
    assert cv2.imread(str(tmp_path / 'x.png')).shape[1] == 1200
