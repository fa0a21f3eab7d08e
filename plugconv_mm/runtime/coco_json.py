"""Predictions in the format of COCO: images, categories and annotations with scores."""
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mmengine.structures import BaseDataElement

from plugconv_mm.errors import ConfigError, MissingPackageError
from plugconv_mm.runtime.prediction import boxes_of


class CocoPredictions:
    """Predictions on images, collected to be written as one JSON object.

    A detection has a score and a box, and a mask where the detector gives one; a segmentor gives one annotation, with
    a mask, for each class in an image, a panoptic one for each segment, and a classifier the class and its score. Ids
    of categories are labels + 1.

    Args:
        classes: Names of the classes; None if they are not known.
        score_thr: The score below which detections are left out.

    Raises:
        MissingPackageError: pycocotools, which masks are encoded with, cannot be imported.
    """

    def __init__(self, classes: list[str] | None, score_thr: float) -> None:
        try:
            from pycocotools import mask
        except ImportError as error:
            raise MissingPackageError(f'predictions are written with pycocotools, which cannot be imported ({error}): '
                                      'install it with `pip install pycocotools`', name='pycocotools') from error
        self.encode = mask.encode
        self.classes, self.score_thr = list(classes or ()), score_thr
        self.images, self.annotations = [], []

    def add(self, name: str | Path, size: tuple[int, int], sample: BaseDataElement) -> None:
        """Add the prediction on an image.

        Args:
            name: The ``file_name`` of the image.
            size: Its height and width.
            sample: The prediction on it.

        Raises:
            ConfigError: There is neither a class, nor a map of labels, nor an instance in the prediction.
        """
        number = len(self.images) + 1
        self.images.append(dict(id=number, file_name=Path(name).as_posix(), height=size[0], width=size[1]))
        for entry in self._entries(sample):
            self.annotations.append(dict(id=len(self.annotations) + 1, image_id=number, **entry))

    def _entries(self, sample: BaseDataElement) -> list[dict]:
        if 'pred_label' in sample:
            return [dict(category_id=label + 1, score=float(sample.pred_score[label]))
                    for label in sample.pred_label.tolist()]
        if 'pred_panoptic_seg' in sample:
            from mmdet.evaluation import INSTANCE_OFFSET
            segments = sample.pred_panoptic_seg.sem_seg[0].numpy()
            return [dict(category_id=segment % INSTANCE_OFFSET + 1, **self._region(segments == segment))
                    for segment in np.unique(segments).tolist() if segment % INSTANCE_OFFSET < len(self.classes)]
        if 'pred_sem_seg' in sample:
            labels = sample.pred_sem_seg.data[0].numpy()
            return [dict(category_id=label + 1, **self._region(labels == label))
                    for label in np.unique(labels).tolist()]
        if 'pred_instances' not in sample:
            raise ConfigError('only predictions of classes, label maps and instances can be written, not '
                              f'{", ".join(sample.keys())}')
        found = sample.pred_instances[sample.pred_instances.scores >= self.score_thr]
        corners = boxes_of(found).double()
        boxes = np.hstack((corners[:, :2], corners[:, 2:] - corners[:, :2])).tolist()
        entries = [dict(category_id=label + 1, score=score, bbox=box) for label, score, box in zip(
            found.labels.tolist(), found.scores.tolist(), boxes, strict=True)]
        if 'masks' in found:
            for entry, mask in zip(entries, found.masks.numpy(), strict=True):
                entry.update(self._region(mask))
        return entries

    def _region(self, mask: np.ndarray) -> dict:
        run_lengths = self.encode(np.asfortranarray(mask, np.uint8))
        return dict(segmentation=dict(run_lengths, counts=run_lengths['counts'].decode()), area=int(mask.sum()))

    def write(self, file: BinaryIO) -> None:
        """Write everything that was added into an open file."""
        count = max([len(self.classes), *(entry['category_id'] for entry in self.annotations)])
        names = [*self.classes, *(f'class {label}' for label in range(len(self.classes), count))]
        categories = [dict(id=label + 1, name=name) for label, name in enumerate(names)]
        file.write(json.dumps(dict(images=self.images, categories=categories, annotations=self.annotations)).encode())
