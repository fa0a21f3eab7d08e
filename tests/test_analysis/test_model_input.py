"""Images as inputs of models."""
import numpy as np
import pytest
import torch

pytest.importorskip('cv2')

from plugconv_mm.analysis.model_input import MEAN, STD, as_input  # noqa: E402

COLOURS = np.tile(np.uint8([10, 20, 30]), (6, 4, 1))  # R, G, B


def test_statistics_of_imagenet_without_a_preprocessor():
    found = as_input(COLOURS, 8)
    assert found.shape == (1, 3, 8, 8) and found.dtype == torch.float32
    expected = (torch.tensor([10., 20., 30.]) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(found[0, :, 3, 3], expected)


@pytest.mark.parametrize('swap, order', [
    (dict(bgr_to_rgb=True), [10, 20, 30]), (dict(to_rgb=True), [10, 20, 30]), (dict(), [30, 20, 10])])
def test_statistics_and_order_of_a_preprocessor(swap, order):
    found = as_input(COLOURS, 8, dict(mean=[1, 2, 3], std=[2, 4, 8], **swap))
    expected = (torch.tensor(order) - torch.tensor([1, 2, 3])) / torch.tensor([2, 4, 8])
    torch.testing.assert_close(found[0, :, 0, 0], expected)
