"""The examples in the docstrings."""
import doctest
import importlib
import pkgutil

import pytest
import torch

import plugconv_mm.analysis
import plugconv_mm.models
import plugconv_mm.ops


def modules():
    for package in (plugconv_mm.ops, plugconv_mm.models, plugconv_mm.analysis):
        for info in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
            if not info.ispkg:
                yield info.name


@pytest.mark.parametrize('name', modules())
def test_docstrings(name):
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
