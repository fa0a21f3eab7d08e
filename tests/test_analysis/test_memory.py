"""The peak memory of tensors."""
import pytest
import torch
from torch import nn

from plugconv_mm.analysis.memory import watched, weight_bytes


def test_memory_peaks_and_what_is_left():
    with watched() as found:
        big = torch.empty(250_000)  # 1 MB
        twice = torch.cat((big, big))
        del big
    assert found.peak == pytest.approx(3_000_000, rel=0.01)
    assert found.left == pytest.approx(twice.numel() * 4, rel=0.01)


def test_weights_are_parameters_and_buffers():
    norm = nn.BatchNorm2d(3)  # weight, bias, mean and variance in float32, and a count in int64
    assert weight_bytes(norm) == 4 * 3 * 4 + 8
