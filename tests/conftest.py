"""What every test begins and ends with."""
import pytest

import plugconv_mm  # noqa: F401  before mmdet, whose modules look for mmcv's operators while they are imported


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
