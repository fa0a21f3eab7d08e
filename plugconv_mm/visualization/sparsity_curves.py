"""Density and changes of the masks in a sparse training, against iterations."""
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plugconv_mm.checkpoint import read_checkpoint
from plugconv_mm.errors import CheckpointError, DataError
from plugconv_mm.ops.sparse_masks import mask_statistics, unpack_mask
from plugconv_mm.visualization.curves import read_scalars
from plugconv_mm.visualization.grids import save_figure

_FIGURES = ('density', 'first_mask_overlap', 'turnover')

Curves = dict[str, list[tuple[int, float]]]


def _from_checkpoints(paths: Iterable[str | os.PathLike]) -> Curves:
    """Compute the figures of the masks in checkpoints."""
    masks, first = {}, {}
    for path in paths:
        checkpoint = read_checkpoint(path)
        state = checkpoint.get('dynamic_sparsity')
        if state is None:
            raise CheckpointError(f'{path} has no masks: it is not of a training with DynamicSparsityHook')
        for packed, target in ((state['masks'], masks), (state['first_masks'], first)):
            target[checkpoint['meta']['iter']] = {name: unpack_mask(bits, checkpoint['state_dict'][name].shape)
                                                  for name, bits in packed.items()}
    curves, before = {}, None
    for iteration in sorted(masks):
        figures = mask_statistics(masks[iteration], first[iteration], before or first[iteration])
        before = masks[iteration]
        for name, value in figures.items():
            curves.setdefault(name, []).append((iteration, value))
    return curves


def read_sparsity(source: str | Path | Sequence[str | Path]) -> dict[str, Curves]:
    """Read the figures that ``DynamicSparsityHook`` logs, or compute them from the masks in checkpoints.

    Args:
        source: A work dir, whose log is read, or checkpoints of one training.

    Returns:
        For 'density', 'first_mask_overlap' and 'turnover' (with checkpoints, the turnover between two of them), pairs
        (iteration, value) in order for each group of layers and for 'all'.

    Raises:
        FileNotFoundError: There is no log, or no such checkpoint.
        CheckpointError: A checkpoint is not of a training with ``DynamicSparsityHook``.
        DataError: The log is not of such a training.
    """
    from_files = isinstance(source, Sequence) and not isinstance(source, str)
    curves = _from_checkpoints(source) if from_files else read_scalars(source)
    figures = {figure: {name.removeprefix(f'{figure}/'): points for name, points in curves.items()
                        if name.startswith(f'{figure}/')} for figure in _FIGURES}
    if not figures['density']:
        raise DataError(f'the log in {source} tells of no sparse training: was DynamicSparsityHook in the config?')
    return figures


def plot_sparsity(path: str | os.PathLike, source: str | Path | Sequence[str | Path]) -> None:
    """Plot density, overlap with the first mask, and turnover of each group of layers against iterations.

    Args:
        path: A .png file.
        source: A work dir or checkpoints, as for :func:`read_sparsity`.
    """
    figures = read_sparsity(source)
    groups = sorted(figures['density'], key=lambda group: (group != 'all', group))
    figure = Figure(figsize=(15, 5 + 0.22 * math.ceil(len(groups) / 4)), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    titles = 'active weights', 'of the first mask still active', 'replaced since the point before'
    for ax, name, title in zip(axes, _FIGURES, titles, strict=True):
        for number, group in enumerate(groups):
            colour = 'black' if group == 'all' else f'C{number % 10}'
            ax.plot(*zip(*figures[name][group], strict=True), color=colour, label=group,
                    linewidth=2.2 if group == 'all' else 1, linestyle=('-', '--', ':')[number // 10 % 3],
                    marker='.' if len(figures[name][group]) < 30 else None)
        ax.set(title=title, xlabel='iteration', ylim=(0, 1.02) if name != 'turnover' else (0, None))
        ax.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, fontsize=8)
    save_figure(figure, path)
