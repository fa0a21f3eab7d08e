"""Latency of models against their multiply-adds and parameters."""
import os
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plugconv_mm.visualization.grids import save_figure


def plot_costs(path: str | os.PathLike, title: str, reports: Sequence) -> None:
    """Plot latency, with its quartiles, against multiply-adds and against parameters.

    Args:
        path: A .png file.
        title: Title of the plot.
        reports: A :class:`plugconv_mm.analysis.compare.ComparisonReport` for each model.
    """
    figure = Figure(figsize=(10, 5), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, label, values in (
            (left, 'multiply-adds of an image (G)', [report.whole.macs / 1e9 for report in reports]),
            (right, 'parameters (M)', [report.whole.params / 1e6 for report in reports])):
        for i, (report, value) in enumerate(zip(reports, values, strict=True)):
            median, low, high = report.whole.latency
            ax.errorbar(value, median, [[median - low], [high - median]], fmt='o', color=f'C{i % 10}', capsize=3,
                        markersize=8, label=report.name, clip_on=False, zorder=3)
        ax.set_xlabel(label)
        ax.set_xlim(0, 1.1 * max(values))
        ax.grid(alpha=0.3)
    left.set_ylim(bottom=0)
    left.set_ylabel(f'latency of {reports[0].batch} x {reports[0].shape[0]}x{reports[0].shape[1]} (ms)')
    figure.legend(*left.get_legend_handles_labels(), loc='outside lower center', frameon=False,
                  ncols=3 if max(len(report.name) for report in reports) < 25 else 1)
    save_figure(figure, path)
