"""What every test begins and ends with."""
import pytest

import plugconv_mm  # noqa: F401  before mmdet, whose modules look for mmcv's operators while they are imported


@pytest.fixture(autouse=True)
def default_scope_of_registries():
    """A Runner sets the default scope of mmengine's registries for good; it ends with the test here."""
    try:
        from mmengine.registry import DefaultScope
    except ImportError:
        yield
        return
    instances = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(instances)
