"""Evaluation under autocast, whose predictions evaluators take."""
from typing import Any

import torch
from mmengine.runner import autocast
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


def predict_in_half_precision(model: nn.Module) -> None:
    """Have ``test_step`` of a model run under autocast: bfloat16 on a CPU, float16 on a GPU.

    Predictions are float32 again: evaluators make arrays of them, which know no bfloat16.

    Args:
        model: A model of mmengine, changed in place; its wrapper where it is wrapped.
    """
    test_step = model.test_step

    def half_test_step(batch: Any) -> list[BaseDataElement]:
        with autocast(enabled=True):
            samples = test_step(batch)
        return [_in_float32(sample) for sample in samples]

    model.test_step = half_test_step


def _in_float32(sample: BaseDataElement) -> BaseDataElement:
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            sample.set_field(_in_float32(value), name)
        elif isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
            sample.set_field(value.float(), name)
    return sample
