"""Drawings of predictions: boxes and masks, label maps, or the name of a class."""
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.utils import ProgressBar
from torch import nn
from torchvision.ops import nms

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.datasets.image_files import read_image
from plugconv_mm.errors import ConfigError, DataError, OutputError
from plugconv_mm.runtime.coco_json import CocoPredictions
from plugconv_mm.runtime.prediction import Predictor, boxes_of
from plugconv_mm.runtime.videos import Video, video_writer, window

_SMALLEST = 224  # sides of images that names are drawn on
_OVERLAP = 0.7  # IoU of boxes of which the best alone is drawn
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

    Of boxes over the same place, of any classes, the one with the best score is drawn.

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
        count, extra = 1, {}
        if self.scope == 'mmdet':
            extra = dict(pred_score_thr=-1)  # it leaves out what is exactly at the threshold
            if 'pred_instances' in sample:
                sample = sample.clone()
                sample.pred_instances = self._best(sample.pred_instances)
                count = 1 if 'pred_panoptic_seg' in sample else len(sample.pred_instances)
        self.visualizer.add_datasample('', image, sample, draw_gt=False, **extra)
        return self.visualizer.get_image()[..., ::-1], count

    def _best(self, instances: InstanceData) -> InstanceData:
        """The best instance of each place, of those that reach the score."""
        instances = instances[instances.scores >= self.score_thr]
        return instances[nms(boxes_of(instances).float(), instances.scores.float(), _OVERLAP)]


def make_out_dir(out_dir: Path, source: Path | None) -> None:
    """Make the folder that drawings are written into, unless it would mix them with what they are drawn on.

    Args:
        out_dir: The folder to write into.
        source: The image, video or folder of images that is drawn on; None for a camera.

    Raises:
        DataError: ``out_dir`` is a file, or in the folder that the images or the video lie in.
        OutputError: It cannot be made.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise DataError(f'{out_dir} is a file: name a folder with --out-dir')
    if source is not None:
        out, root = out_dir.resolve(), (source if source.is_dir() else source.parent).resolve()
        if out == root or source.is_dir() and out.is_relative_to(root):
            raise DataError(f'{out_dir} is in {root}, where the images lie: they would be replaced, or what is drawn '
                            'would be found among them; name another --out-dir')
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(error.errno, f'{error.strerror}; name another folder with --out-dir', str(out_dir)) from error


def draw_images(predictor: Predictor, drawer: PredictionDrawer, images: Sequence[Path], source: Path, out_dir: Path,
                predictions: CocoPredictions | None = None) -> tuple[list[Path], list[str], int]:
    """Predict and draw images, with a progress bar.

    Each is written under its own name, and that of the folder in which it lies in ``source``, with ``.png`` behind it
    where the format cannot be written; older files are replaced once the new one is complete.

    Args:
        predictor: Predictions on the images.
        drawer: Drawings of these predictions.
        images: The files that :func:`~plugconv_mm.datasets.image_files.find_images` found.
        source: The folder that was searched, or the one image.
        out_dir: The folder to write into, of :func:`make_out_dir`.
        predictions: Takes the predictions, too.

    Returns:
        The files written, a message for each image that cannot be read, and the number of things drawn on all of them.

    Raises:
        DataError: None of the images can be read.
    """
    root = source if source.is_dir() else source.parent
    written, unreadable, total = [], [], 0
    bar = ProgressBar(len(images), file=sys.stderr) if len(images) > 1 else None
    for path in images:
        try:
            image = read_image(path)
            sample = predictor(path)
            drawn, count = drawer(image, sample)
        except DataError as error:
            unreadable.append(str(error))
        else:
            if predictions:
                predictions.add(path.relative_to(root), image.shape[:2], sample)
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


def draw_video(predictor: Predictor, drawer: PredictionDrawer, video: Video, out_dir: Path | None,
               predictions: CocoPredictions | None = None) -> tuple[int, int]:
    """Predict and draw the frames of a video, with a progress bar for a file.

    They are written as ``NAME.mp4``, at the rate of the video, or shown. A camera goes on until the window is closed,
    or until Ctrl-C; what was drawn until then is kept.

    Args:
        predictor: Predictions on the frames.
        drawer: Drawings of these predictions.
        video: The frames.
        out_dir: The folder to write into, of :func:`make_out_dir`; None shows them in a window.
        predictions: Takes the predictions, too, under the names ``NAME-000000.jpg``, ``NAME-000001.jpg``, …

    Returns:
        The numbers of frames and of things drawn on all of them.

    Raises:
        OutputError: The video cannot be written.
    """
    frames = total = 0
    bar = None if video.is_camera else ProgressBar(video.count, file=sys.stderr)
    sink = video_writer(out_dir / f'{video.name}.mp4', video.rate) if out_dir else window(video.name)
    stop = contextlib.suppress(KeyboardInterrupt) if video.is_camera else contextlib.nullcontext()
    with sink as put, stop:
        for image in video:
            sample = predictor(image)
            drawn, count = drawer(image, sample)
            if predictions:
                predictions.add(f'{video.name}-{frames:06d}.jpg', image.shape[:2], sample)
            frames, total = frames + 1, total + count
            if not put(drawn):
                break
            if bar:
                bar.update()
    if bar:
        print(file=sys.stderr)
    return frames, total
