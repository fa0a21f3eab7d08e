"""Drawings of predictions: boxes and masks, label maps, or the name of a class."""
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.utils import ProgressBar
from torch import nn

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.datasets.image_files import read_image
from plugconv_mm.errors import ConfigError, DataError
from plugconv_mm.runtime.prediction import Predictor

_SMALLEST = 224  # sides of images that names are drawn on
_VISUALIZERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer', mmpretrain='UniversalVisualizer')


def check_task(cfg: Config) -> None:
    """Check that the predictions of a config can be drawn, before its model is built.

    Raises:
        ConfigError: It is not one of mmdet, mmseg or mmpretrain.
    """
    if cfg.get('default_scope') not in _VISUALIZERS:
        raise ConfigError(f'images are drawn for configs of {", ".join(_VISUALIZERS)}; the default_scope of this one '
                          f'is {cfg.get("default_scope")}')


class PredictionDrawer:
    """Drawings of the predictions of a model.

    Args:
        cfg: A whole config that passed :func:`check_task`.
        model: The model of :func:`~plugconv_mm.runtime.weights.build_with_weights`.
        score_thr: The score below which boxes and masks are not drawn.
    """

    def __init__(self, cfg: Config, model: nn.Module, score_thr: float = 0.3) -> None:
        self.scope, self.model_name, self.score_thr = cfg.get('default_scope'), type(model).__name__, score_thr
        kind = f'{self.scope}.{_VISUALIZERS[self.scope]}'
        extra = dict(alpha=0.6) if self.scope == 'mmseg' else {}
        self.visualizer = VISUALIZERS.build(dict(type=kind, name=f'drawer-{id(self)}', **extra))
        meta = dict(model.dataset_meta or {})
        if self.scope == 'mmseg' and not (meta.get('classes') and meta.get('palette')):
            colours = np.random.default_rng(0).integers(0, 256, (model.out_channels, 3)).tolist()
            meta = dict(classes=meta.get('classes') or [f'class {i}' for i in range(model.out_channels)],
                        palette=colours)
        self.visualizer.dataset_meta = meta

    def __call__(self, image: np.ndarray, sample: BaseDataElement) -> tuple[np.ndarray, int]:
        """Draw a prediction.

        Args:
            image: (H, W, 3), RGB, uint8.
            sample: The prediction on it.

        Returns:
            The drawing, (H, W, 3) BGR, and the number of boxes, regions or names drawn.

        Raises:
            ConfigError: The prediction of a classifier has no class.
        """
        if self.scope == 'mmpretrain':
            if 'pred_label' not in sample:
                raise ConfigError(f'{self.model_name} predicts no class, which is what would be drawn')
            classes = self.visualizer.dataset_meta.get('classes')
            drawn = self.visualizer.visualize_cls(
                image, sample, classes=classes, draw_gt=False, name='',
                resize=_SMALLEST if min(image.shape[:2]) < _SMALLEST else None)
            return drawn[..., ::-1], 1
        extra = dict(pred_score_thr=self.score_thr) if self.scope == 'mmdet' else {}
        self.visualizer.add_datasample('', image, sample, draw_gt=False, **extra)
        count = 1
        if self.scope == 'mmdet' and 'pred_instances' in sample and 'pred_panoptic_seg' not in sample:
            count = int((sample.pred_instances.scores >= self.score_thr).sum())
        return self.visualizer.get_image()[..., ::-1], count


def draw_images(predictor: Predictor, drawer: PredictionDrawer, images: Sequence[Path], source: Path,
                out_dir: Path) -> tuple[list[Path], list[str], int]:
    """Predict and draw images, with a progress bar.

    Each is written under its own name, and that of the folder in which it lies in ``source``, with ``.png`` behind it
    where the format cannot be written; older files are replaced once the new one is complete.

    Args:
        predictor: Predictions on the images.
        drawer: Drawings of these predictions.
        images: The files that :func:`~plugconv_mm.datasets.image_files.find_images` found.
        source: The folder that was searched, or the one image.
        out_dir: The folder to write into.

    Returns:
        The files written, a message for each image that cannot be read, and the number of things drawn on all of them.

    Raises:
        DataError: ``out_dir`` is a file, or in the folder that the images lie in, or none of them can be read.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise DataError(f'{out_dir} is a file: name a folder with --out-dir')
    root = source if source.is_dir() else source.parent
    if out_dir.resolve() == root.resolve() or source.is_dir() and out_dir.resolve().is_relative_to(root.resolve()):
        raise DataError(f'{out_dir} is in {root}, where the images lie: they would be replaced, or what is drawn '
                        'would be found among them; name another --out-dir')
    written, unreadable, total = [], [], 0
    bar = ProgressBar(len(images), file=sys.stderr) if len(images) > 1 else None
    for path in images:
        try:
            image = read_image(path)
            drawn, count = drawer(image, predictor(path))
        except DataError as error:
            unreadable.append(str(error))
        else:
            target = out_dir / path.relative_to(root)
            if not cv2.haveImageWriter(target.name):
                target = target.with_name(f'{target.name}.png')
            target.parent.mkdir(parents=True, exist_ok=True)
            _, data = cv2.imencode(target.suffix, np.ascontiguousarray(drawn))
            with atomic_write(target) as file:
                file.write(data)
            written.append(target)
            total += count
        if bar:
            bar.update()
    if bar:
        print(file=sys.stderr)
    if not written:
        raise DataError('\n'.join(unreadable))
    return written, unreadable, total
