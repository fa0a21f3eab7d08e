"""Predictions beside ground truth, on one page."""
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plugconv_mm.atomic_write import atomic_write


def _overlay(ax: Axes, mask: np.ndarray, colour: np.ndarray, alpha: float = 0.45) -> None:
    """Draw a mask (H, W) as a transparent layer with an outline."""
    image = np.zeros((*mask.shape, 4))
    image[mask] = (*colour, alpha)
    ax.imshow(image, interpolation='nearest')
    ax.contour(mask, levels=[0.5], colors=[colour], linewidths=1.2)


def _tag(ax: Axes, x: float, y: float, text: str, colour: np.ndarray) -> None:
    """Write a text on a box of this colour."""
    light = np.dot(colour, (0.299, 0.587, 0.114)) > 0.55
    ax.text(x, y, text, fontsize=9, color='black' if light else 'white', va='bottom', ha='left', clip_on=False,
            bbox=dict(boxstyle='square,pad=0.15', facecolor=colour, edgecolor='none', alpha=0.9))


def draw_instances(ax: Axes, image: np.ndarray, instances: Iterable[dict], classes: Sequence[str],
                   palette: Sequence[Sequence[int]]) -> None:
    """Draw boxes, masks and names of one image.

    Args:
        ax: The axes to draw into.
        image: The image (H, W, 3), RGB, uint8.
        instances: Dicts with 'box' (x1, y1, x2, y2) in pixels, 'label', 'mask' (H, W) of bool, and for predictions
            'score'.
        classes: Names of the labels.
        palette: RGB of the labels, 0 to 255.
    """
    ax.imshow(image)
    for instance in instances:
        colour = np.array(palette[instance['label']]) / 255
        x1, y1, x2, y2 = instance['box']
        if instance['mask'].any() and not instance['mask'].all():
            _overlay(ax, instance['mask'], colour)
        ax.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.6))
        score = f' {instance["score"]:.2f}' if 'score' in instance else ''
        # inside the image, so that the names of two neighbouring panels never meet
        _tag(ax, min(x1, image.shape[1] - 45), max(y1 - 2, 12), classes[instance['label']] + score, colour)


def draw_label_map(ax: Axes, image: np.ndarray, labels: np.ndarray, classes: Sequence[str],
                   palette: Sequence[Sequence[int]], background: int = 0, smallest: int = 20) -> None:
    """Draw a label map over its image, each connected region of at least ``smallest`` pixels with its name.

    Args:
        ax: The axes to draw into.
        image: The image (H, W, 3), RGB, uint8.
        labels: Class indices (H, W); pixels of ``background`` and 255 are not drawn.
        classes: Names of the labels.
        palette: RGB of the labels, 0 to 255.
        background: The label that is not drawn.
        smallest: The least number of pixels of a region whose name is written.
    """
    import cv2
    ax.imshow(image)
    for label in np.unique(labels):
        if label in (background, 255):
            continue
        colour = np.array(palette[label]) / 255
        mask = labels == label
        _overlay(ax, mask, colour, alpha=0.65)
        count, _, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        for x, y, _, _, area in boxes[1:count]:
            if area >= smallest:
                _tag(ax, min(x, image.shape[1] - 30), max(y - 2, 12), classes[label], colour)


def save_grid(path: str | os.PathLike, title: str, rows: Sequence[tuple], draw: Callable, columns: int = 4) -> None:
    """Save pairs of panels, ground truth beside prediction, as one image.

    Args:
        path: A .png file.
        title: Title of the page.
        rows: For each image a tuple of its name, the image, its ground truth and its prediction.
        draw: The function that draws a panel. It takes the axes, the image, and the ground truth or the prediction.
        columns: Number of panels in a row, two for each image.

    Raises:
        ValueError: There are no images.
    """
    if not rows:
        raise ValueError('no images to draw')
    pairs = columns // 2
    lines = -(-len(rows) // pairs)
    figure = Figure(figsize=(3.4 * columns, 3.55 * lines + 0.5), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14)
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (name, image, truth, prediction) in enumerate(rows):
        line, column = divmod(i, pairs)
        for k, (kind, item) in enumerate((('ground truth', truth), ('prediction', prediction))):
            ax = axes[line, 2 * column + k]
            draw(ax, image, item)
            ax.set_title(f'{name}: {kind}', fontsize=10)
            ax.set_xlim(-0.5, image.shape[1] - 0.5)
            ax.set_ylim(image.shape[0] - 0.5, -0.5)
    save_figure(figure, path)


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, atomically; its folder is made if there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format='png')
