"""Drawings of the classes that a classifier predicts in a test."""
import os
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from plugconv_mm.datasets.image_files import read_image
from plugconv_mm.registry import HOOKS

_SMALLEST = 224  # sides of images, in pixels, on which names can be read


@HOOKS.register_module()
class DrawClassesHook(Hook):
    """Draws every image of a test with the class that a classifier of mmpretrain predicts, and the true one.

    mmpretrain's ``VisualizationHook`` draws one image of 5000, under its bare name, which images of several folders
    have in common. Here each keeps the folders that it lies in, below the one that holds all images.

    Args:
        out_dir: The folder to write into; None writes nothing.
        show: Whether each image is shown in a window.
        wait_time: Seconds that a window stays; 0 waits for a key.
    """

    def __init__(self, out_dir: str | None = None, show: bool = False, wait_time: float = 0.) -> None:
        self.out_dir, self.show, self.wait_time = out_dir, show, wait_time
        self._count = 0
        self._root = ''

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        paths = [dataset.get_data_info(i).get('img_path') for i in range(len(dataset))]
        folders = {os.path.dirname(os.path.abspath(path)) for path in paths if path and os.path.isfile(path)}
        self._root = os.path.commonpath(folders) if folders else ''
        self._count = 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        for number, sample in enumerate(outputs):
            path = sample.get('img_path')
            path = path if path and os.path.isfile(path) else None  # else on another machine, or in no file
            name = os.path.relpath(os.path.abspath(path), self._root) if path else f'{self._count}.png'
            self._count += 1
            if not cv2.haveImageWriter(name):
                name += '.png'
            image = read_image(path) if path else _image_of(data_batch['inputs'], number)
            runner.visualizer.visualize_cls(
                image, sample, name=name, show=self.show, wait_time=self.wait_time,
                resize=_SMALLEST if min(image.shape[:2]) < _SMALLEST else None,
                out_file=os.path.join(self.out_dir, name) if self.out_dir else None)


def _image_of(inputs: Sequence, number: int) -> np.ndarray:
    """An image of a batch, (H, W, 3), where it comes from no file; of several views, the first."""
    image = inputs[number] if torch.is_tensor(inputs[0]) else inputs[0][number]
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy().astype(np.uint8))
