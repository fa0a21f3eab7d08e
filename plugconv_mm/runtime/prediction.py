"""Predictions on images of the user's own."""
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_parts import first_test_dataset


class Predictor:
    """Predictions of a model on images, prepared as the test of its config prepares them.

    Args:
        cfg: The whole config.
        model: The model of :func:`~plugconv_mm.runtime.weights.build_with_weights`, on any device.

    Raises:
        ConfigError: The config does not say how images are prepared.
    """

    def __init__(self, cfg: Config, model: nn.Module) -> None:
        self.model = model
        _, steps = first_test_dataset(cfg)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            self.pipeline = Compose(steps)

    @torch.no_grad()
    def __call__(self, image: str | Path | np.ndarray) -> BaseDataElement:
        """The prediction on an image, on the CPU and at the size of the image.

        Args:
            image: An image file, or the image itself, (H, W, 3), RGB, uint8.

        Raises:
            ConfigError: An image that was read already cannot take the place of the file that the config reads.
        """
        if isinstance(image, np.ndarray):
            data = self._prepare(image)
        else:
            data = self.pipeline(dict(img_path=str(image), img_id=0))
        return self.model.test_step(pseudo_collate([data]))[0].cpu()

    def _prepare(self, image: np.ndarray) -> dict:
        """What the pipeline makes of an image as if it had read it from a file."""
        load, *steps = self.pipeline.transforms
        if type(load).__name__ != 'LoadImageFromFile' or load.color_type != 'color':
            raise ConfigError('images of a video are prepared by a test_dataloader.dataset.pipeline that begins with '
                              f'LoadImageFromFile, in colour; the one of this config begins with {load}')
        image = np.ascontiguousarray(image[..., ::-1], np.float32 if load.to_float32 else np.uint8)
        shape = image.shape[:2]
        return Compose(steps)(dict(img=image, img_path=None, img_id=0, img_shape=shape, ori_shape=shape))


def boxes_of(instances: InstanceData) -> Tensor:
    """The boxes of instances, (N, 4), as corners; of their masks where a detector has no boxes, as SOLOv2."""
    if 'masks' in instances and not instances.bboxes.any():
        from mmdet.structures.mask import mask2bbox
        return mask2bbox(instances.masks)
    return instances.bboxes
