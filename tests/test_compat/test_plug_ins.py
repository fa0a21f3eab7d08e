"""Names that packages import when they are first asked for: what an editor sees of them is what there is."""
import ast
import importlib
from pathlib import Path

import pytest

import plugconv_mm

ROOT = Path(plugconv_mm.__file__).parent
LAZY = sorted(path.parent for path in ROOT.rglob('__init__.py') if 'plug_ins(' in path.read_text())


def module_name(path):
    return '.'.join(['plugconv_mm', *path.relative_to(ROOT).parts])


def imports_for_editors(path):
    """The module of each name that is imported under ``if TYPE_CHECKING``."""
    tree = ast.parse((path / '__init__.py').read_text())
    checked, = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING')
    assert all(isinstance(node, ast.ImportFrom) for node in checked.body)
    # `import X as X` is what makes a name public to a type checker.
    assert all(alias.asname == alias.name for node in checked.body for alias in node.names)
    return {alias.name: node.module for node in checked.body for alias in node.names}


def test_the_lazy_packages_are_found():
    assert {module_name(path) for path in LAZY} >= {
        'plugconv_mm.models', 'plugconv_mm.models.backbones', 'plugconv_mm.models.necks',
        'plugconv_mm.models.decode_heads', 'plugconv_mm.analysis'}


@pytest.mark.parametrize('path', LAZY, ids=module_name)
def test_editors_see_every_name(path):
    for name in ('mmcv', 'mmdet', 'mmseg'):
        pytest.importorskip(name)
    package, shown = importlib.import_module(module_name(path)), imports_for_editors(path)
    assert sorted(shown) == package.__all__ and set(shown) <= set(dir(package))
    for name, module in shown.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_every_convolution_is_declared():
    """One that is not would be found only after another one was asked for."""
    pytest.importorskip('mmengine')
    from plugconv_mm.plugging import CONVS
    from plugconv_mm.registry import MODELS
    assert set(CONVS) <= set(MODELS.declared())


def test_ours_are_built_in_any_default_scope():
    pytest.importorskip('mmpretrain')
    from mmengine.registry import init_default_scope

    from plugconv_mm.registry import MODELS
    cfg = dict(type='ParC2d', in_channels=4, out_channels=4, kernel_size=1, groups=4)
    for scope in ('mmpretrain', 'mmengine'):
        init_default_scope(scope)
        assert type(MODELS.build(cfg)).__name__ == 'ParC2d' and cfg['type'] == 'ParC2d'


def test_the_package_itself():
    shown = imports_for_editors(ROOT)
    assert set(shown) == {*plugconv_mm._LAZY, *plugconv_mm._PLUGGING} <= set(dir(plugconv_mm))
    for name, package in shown.items():
        assert package == ('plugconv_mm.plugging' if name in plugconv_mm._PLUGGING else 'plugconv_mm')
        value = getattr(plugconv_mm, name)
        assert value is getattr(plugconv_mm.plugging, name, None) or value.__name__ == f'plugconv_mm.{name}'
    with pytest.raises(AttributeError, match="module 'plugconv_mm' has no attribute 'nothing'"):
        _ = plugconv_mm.nothing
