"""An exported file in the place of the model that it was made of."""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.nn import functional as F

from plugconv_mm.errors import ExportError
from plugconv_mm.export.pasting import paste
from plugconv_mm.export.pixels import padding_value
from plugconv_mm.export.runtimes import ExportedFile
from plugconv_mm.export.suppression import detections
from plugconv_mm.export.tasks import labels_of


class ExportedModel:
    """Predictions of a file on the batches of a config's test.

    Images smaller than those of the file are filled up at the bottom and on the right. Labels of pixels come to the
    size of the image without interpolation, where mmseg interpolates logits; files with logits do as mmseg does.

    Args:
        model: The model in PyTorch, whose preprocessor prepares the images.
        file: The file.

    Attributes:
        differences: What was done with images and labels of a segmentor that PyTorch does not do, and how to avoid it.

    Raises:
        ExportError: The file is not one of a whole model.
    """

    def __init__(self, model: Any, file: ExportedFile) -> None:
        self.model, self.file, self.meta = model, file, file.metadata
        self.differences: set[str] = set()
        self.predict = dict(detection=self._detections, segmentation=self._regions, classification=self._classes).get(
            self.meta.get('task', ''))
        if self.predict is None:
            raise ExportError('only files of whole classifiers, segmentors and detectors can be evaluated')

    def prepare(self, batch: dict) -> tuple[Tensor, Sequence[Any]]:
        """The images of a batch as the file takes them, and its samples.

        Raises:
            ExportError: An image is larger than those of the file.
        """
        if self.meta['layout'] == 'NHWC':
            pixel = torch.tensor(self.meta['pad'], dtype=torch.uint8)
            sizes = [image.shape[-2:] for image in batch['inputs']]
            size = list(map(max, *sizes, (0, 0))) if self.meta['any_size'] else self.meta['size']
            images = torch.stack([_filled(image, size, pixel[:, None, None]) for image in batch['inputs']])
            return images.permute(0, 2, 3, 1).contiguous(), batch['data_samples']
        data = self.model.data_preprocessor(batch, False)
        if self.meta['any_size']:
            return data['inputs'], data['data_samples']
        fill = torch.tensor(padding_value(self.model.data_preprocessor))
        return _filled(data['inputs'], self.meta['size'], fill), data['data_samples']

    def test_step(self, batch: dict) -> Sequence[Any]:
        """The samples of a batch with predictions, as those that ``test_step`` of a model gives.

        Raises:
            ExportError: An image is larger than those of the file.
        """
        images, samples = self.prepare(batch)
        return self.predict(self.file.run(images), samples)

    def _detections(self, outputs: list[Tensor], samples: Sequence[Any]) -> Sequence[Any]:
        dets, labels, *masks = outputs
        if 'suppression' in self.meta:
            about = self.meta['suppression']
            dets, labels = detections(dets[..., :4], dets[..., 4], labels, about, about['limit'])
        for number, sample in enumerate(samples):
            keep = labels[number] >= 0
            height, width = sample.img_shape[:2]
            scale = torch.tensor(sample.get('scale_factor', (1., 1.))).repeat(2)
            boxes = torch.minimum(dets[number, keep, :4], torch.tensor([width, height, width, height])) / scale
            found = InstanceData(bboxes=boxes, scores=dets[number, keep, 4], labels=labels[number, keep])
            if masks:
                area = boxes
                if self.meta['masks'] == 'image':
                    height, width = (self.meta['mask_stride'] * side for side in masks[0].shape[2:])
                    area = (torch.tensor([0, 0, width, height]) / scale).expand_as(boxes)
                found.masks = paste(masks[0][number, keep][None].to(boxes.dtype), area[None],
                                    tuple(sample.ori_shape[:2]), 0.5)[0]
            sample.pred_instances = found
        return samples

    def _regions(self, outputs: list[Tensor], samples: Sequence[Any]) -> Sequence[Any]:
        for output, sample in zip(outputs[0], samples, strict=True):
            height, width = sample.img_shape[:2]
            if tuple(output.shape[-2:]) != (height, width):
                self.differences.add('smaller images were filled up to the size of the file; with --dynamic batch,size '
                                     'it takes them as they are')
            output = output[..., :height, :width]
            if output.dim() == 2:
                if (height, width) != tuple(sample.ori_shape[:2]):
                    self.differences.add('labels were resized, where mmseg resizes logits; with --raw the file gives '
                                         'logits')
                labels = F.interpolate(output[None, None].to(torch.float32), sample.ori_shape[:2])[0].to(torch.int64)
            else:
                logits = F.interpolate(output[None], sample.ori_shape[:2], mode='bilinear',
                                       align_corners=self.model.align_corners)
                labels = labels_of(self.model, logits)
            sample.pred_sem_seg = PixelData(data=labels)
        return samples

    def _classes(self, outputs: list[Tensor], samples: Sequence[Any]) -> Sequence[Any]:
        for scores, sample in zip(outputs[0], samples, strict=True):
            sample.set_pred_score(scores).set_pred_label(scores.argmax())
        return samples


def _filled(images: Tensor, size: Sequence[int], value: Tensor) -> Tensor:
    """Images (..., h, w) in the top left corner of larger ones."""
    height, width = images.shape[-2:]
    if height > size[0] or width > size[1]:
        raise ExportError(f'an image of the test has {height}x{width} pixels, and the file takes {size[0]}x{size[1]}: '
                          'export it with a --shape that holds all of them, or with --dynamic batch,size')
    if (height, width) == tuple(size):
        return images
    filled = value.to(images.dtype).expand(*images.shape[:-2], *size).clone()
    filled[..., :height, :width] = images
    return filled
