"""Loss and evaluation figures against iterations, from what mmengine logs."""
import json
import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plugconv_mm.errors import DataNotFoundError
from plugconv_mm.visualization.grids import save_figure


def read_scalars(work_dir: str | os.PathLike) -> dict[str, list[tuple[int, float]]]:
    """Read the curves of a training, resumed or not, from its work dir.

    Args:
        work_dir: The work dir of ``tools/train.py``.

    Returns:
        For each scalar, pairs (iteration, value) in order. The values of a resumed run replace those that an earlier
        run logged after the iteration from which it was resumed.

    Raises:
        DataNotFoundError: The folder holds no ``vis_data/scalars.json``.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise DataNotFoundError(f'{work_dir} holds no */vis_data/scalars.json; was a model trained there?')
    curves, epochs = {}, {}
    for file in files:
        curves_of_run, iteration = {}, 0
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # cut short when the run was interrupted
                continue
            if 'loss' in record:
                iteration = record.get('iter', record['step'])
                epochs[record.get('epoch')] = iteration
            elif 'iter' in record:  # a hook's own
                iteration = record['iter']
            else:  # an evaluation; by epochs, its step is the epoch
                iteration = epochs.get(record['step'], record['step']) if None not in epochs else record['step']
            for name, value in record.items():
                if isinstance(value, (int, float)):
                    curves_of_run.setdefault(name, []).append((iteration, value))
        for name, points in curves_of_run.items():
            kept = [point for point in curves.get(name, []) if point[0] < points[0][0]]
            curves[name] = kept + points
    return curves


def plot_curves(path: str | os.PathLike, work_dir: str | os.PathLike, title: str,
                figures: dict[str, tuple[str, float]]) -> None:
    """Plot the loss, and evaluation figures between 0 and 1, against iterations.

    Args:
        path: A .png file.
        work_dir: The work dir of the training.
        title: Title of the plot.
        figures: Evaluation figures to plot: for each name in the log, its name in the legend, and the factor that
            brings it into the range from 0 to 1.
    """
    curves = read_scalars(work_dir)
    figure = Figure(figsize=(10, 4), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*curves.get('loss', [(0, float('nan'))]), strict=True), color='tab:blue')
    left.set(xlabel='iteration', ylabel='training loss')
    left.set_ylim(bottom=0)
    for name, (label, factor) in figures.items():
        if name in curves:
            steps, values = zip(*curves[name], strict=True)
            values = [value * factor for value in values]
            right.plot(steps, values, marker='o', label=label)
            right.annotate(f'{values[-1]:.3f}', (steps[-1], values[-1]), textcoords='offset points', xytext=(0, 6),
                           ha='center')
    right.set(xlabel='iteration', ylabel='on the validation images', ylim=(0, 1))
    right.legend(loc='upper left')
    for ax in (left, right):
        ax.grid(alpha=0.3)
    save_figure(figure, path)
