"""Heat maps: effective receptive fields, and maps over images."""
import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plugconv_mm.visualization.grids import save_figure

_LOWEST = 1e-4  # relative to the greatest contribution; below it a heat map is black


def plot_contributions(path: str | os.PathLike, fields: dict[str, tuple[np.ndarray, dict[float, int]]],
                       columns: int = 4) -> None:
    """Plot effective receptive fields side by side, each relative to its own maximum, on one logarithmic scale.

    Args:
        path: A .png file.
        fields: For each model its contributions (H, W), and the sides of the centred squares to draw, by the share of
            the contributions that they hold.
        columns: The most panels in a row.
    """
    lines = -(-len(fields) // columns)
    columns = -(-len(fields) // lines)
    row = 3.8 + 0.2 * max(name.count('\n') for name in fields)
    figure = Figure(figsize=(3.6 * columns + 0.9, row * lines), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    scale = LogNorm(_LOWEST, 1, clip=False)
    for ax, (name, (contributions, squares)) in zip(axes.flat, fields.items(), strict=False):
        relative = contributions / max(contributions.max(), np.finfo(float).tiny)
        mesh = ax.imshow(np.maximum(relative, _LOWEST), norm=scale, cmap='inferno', interpolation='nearest')
        height, width = contributions.shape
        for (share, side), style in zip(squares.items(), ('-', '--', '-.', ':'), strict=False):
            # just inside the image, so that a square as large as the image can be seen
            left, top = (max(length // 2 - side // 2 - 0.5, 0) for length in (width, height))
            right, bottom = (min(length // 2 + side // 2 + 0.5, length - 1) for length in (width, height))
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor='deepskyblue',
                                   linestyle=style, linewidth=1.3, label=f'{share:.0%}'))
        ax.set_title(name, fontsize=10)
    figure.colorbar(mesh, ax=axes, label='contribution, relative to the greatest', shrink=0.85, extend='min')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, [f'square that holds {label}' for label in labels], loc='outside lower center',
                      ncols=len(handles), frameon=False, fontsize=9)
    save_figure(figure, path)


def save_overlays(path: str | os.PathLike, rows: Sequence[Sequence[dict]]) -> None:
    """Save images and maps over them as a grid.

    Args:
        path: A .png file.
        rows: For each image its panels: dicts with 'title', 'image' (H, W, 3), RGB, uint8, and optionally 'map' (H, W)
            with values between 0 and 1 and 'box' (x1, y1, x2, y2) in pixels.

    Raises:
        ValueError: There are no images.
    """
    if not rows:
        raise ValueError('no images to draw')
    columns = len(rows[0])
    heights = [row[0]['image'].shape[0] / row[0]['image'].shape[1] for row in rows]
    figure = Figure(figsize=(3.4 * columns, sum(3.4 * height + 0.45 for height in heights)), dpi=130,
                    layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=dict(height_ratios=heights))
    for line, row in zip(axes, rows, strict=True):
        for ax, panel in zip(line, row, strict=True):
            ax.set_axis_off()
            ax.imshow(panel['image'])
            if panel.get('map') is not None:
                ax.imshow(panel['map'], cmap='jet', alpha=0.5, vmin=0, vmax=1)
            if panel.get('box') is not None:
                x1, y1, x2, y2 = panel['box']
                ax.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor='white',
                                       linewidth=1.8))
            ax.set_title(textwrap.fill(panel['title'], 44), fontsize=9)
    save_figure(figure, path)
