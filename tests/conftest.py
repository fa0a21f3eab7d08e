"""What every test begins and ends with."""
import pytest
import torch

import plugconv_mm  # noqa: F401  before mmdet, whose modules look for mmcv's operators while they are imported
from plugconv_mm.ops.mechanisms import tuning, tuning_file


@pytest.fixture(autouse=True)
def nothing_left_of_runners():
    """A Runner sets the default scope of mmengine's registries and a visualizer for good; here each test has its own.

    They go before a test, too, as fixtures of a module leave them behind, and after it, for the sake of such fixtures.
    """
    try:
        from mmengine.registry import DefaultScope
        from mmengine.visualization import Visualizer
    except ImportError:
        yield
        return

    def clear():
        for kind in (DefaultScope, Visualizer, *Visualizer.__subclasses__()):
            kind._instance_dict.clear()

    clear()
    yield
    clear()


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    """A Runner of a segmentor sets cudnn's benchmark for good, with which ParC's form would depend on the machine."""
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    monkeypatch.setattr(tuning, '_choices', tuning_file.Choices())
    monkeypatch.delenv('PLUGCONV_TUNING', raising=False)
