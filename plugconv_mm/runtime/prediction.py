"""Predictions on images of the user's own."""
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

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
    def __call__(self, path: str | Path) -> BaseDataElement:
        """The prediction on an image file, on the CPU and at the size of the image."""
        batch = pseudo_collate([self.pipeline(dict(img_path=str(path), img_id=0))])
        return self.model.test_step(batch)[0].cpu()
