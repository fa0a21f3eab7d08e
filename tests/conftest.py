"""What every test begins and ends with."""
import pytest

import plugconv_mm  # noqa: F401  before mmdet, whose modules look for mmcv's operators while they are imported


@pytest.fixture(autouse=True)
def default_scope_of_registries():
    """A Runner sets the default scope of mmengine's registries for good; here each test begins without one."""
    try:
        from mmengine.registry import DefaultScope
    except ImportError:
        yield
        return
    DefaultScope._instance_dict.clear()  # of what fixtures of a module left, too
    yield
