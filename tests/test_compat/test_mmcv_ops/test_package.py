"""What the package answers for operators that it does not serve, and which it must serve."""
import importlib.util
import pathlib
import re

import mmcv_operators  # noqa: F401  skips where mmcv is not installed
import pytest
import torch

from plugconv_mm.compat import mmcv_ops


def test_other_operators_say_how_to_build_them():
    assert hasattr(mmcv_ops, 'nms_quadri') and not hasattr(mmcv_ops, '__wrapped__')
    with pytest.raises(NotImplementedError, match=r"'nms_quadri' is not available.*make mmcv.*MMCV_WITH_OPS=1"):
        mmcv_ops.nms_quadri(torch.rand(1, 5), torch.rand(1))


def test_versions():
    assert mmcv_ops.get_compiling_cuda_version() == 'not available'
    assert 'torchvision' in mmcv_ops.get_compiler_version()


def reached_functions(package):
    """The compiled functions behind all that a package's code imports from mmcv.ops or its configs name."""
    folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
    code = '\n'.join(path.read_text() for path in folder.rglob('*.py'))
    names = set(re.findall(r"type='(\w+)'", code))
    for bracketed, plain in re.findall(r'from mmcv\.ops[\w.]* import (?:\(([^)]*)\)|(.*))', code):
        names |= set(re.findall(r'\w+', bracketed or plain))
    functions = set()
    for path in (pathlib.Path(importlib.util.find_spec('mmcv').origin).parent / 'ops').glob('*.py'):
        source = path.read_text()
        offered = set(re.findall(r"^(?:class|def) (\w+)|^(\w+) = \w+\.apply|register_module\((?:name=)?'(\w+)'",
                                 source, re.M))
        if names & set(sum(offered, ())):
            functions |= set(re.findall(r'ext_module\.(\w+)', source))
    return functions


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_serves_all_that_a_package_reaches(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed')
    functions = reached_functions(package)
    assert {'mmdet': 'masked_im2col_forward', 'mmseg': 'psamask_forward'}[package] in functions
    # mmcv/ops/nms.py calls it for quadrilaterals, which neither package knows.
    assert functions - {'nms_quadri'} <= set(mmcv_ops.__all__)
    assert all(callable(getattr(mmcv_ops, name)) for name in mmcv_ops.__all__)
