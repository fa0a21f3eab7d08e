"""Packages that are missing, broken, doubled, or of a version we do not support."""
import importlib.metadata
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from plugconv_mm.compat import packages

REQUIREMENTS = Path(__file__).parents[2] / 'requirements'


def run(code, *absent):
    """Run code in an interpreter where the packages ``absent`` cannot be imported."""
    hide = f'import sys; sys.modules.update(dict.fromkeys({absent}))\n'
    return subprocess.run([sys.executable, '-c', hide + code], capture_output=True, text=True)


def test_torch_alone():
    """Everything else is absent: the operators work, and whatever asks for more is told what is missing."""
    done = run('import plugconv_mm, torch\n'
               'plugconv_mm.ops.ParC2d; import plugconv_mm.models\n'
               'def message(code):\n'
               '    try: exec(code)\n'
               '    except ImportError as error: print(error)\n'
               'message("from plugconv_mm.models import HorFPN")\n'
               'message("from plugconv_mm.registry import MODELS")\n',
               'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 'needs mm' in lines[0] and 'pip install' in lines[0]
    assert lines[1].startswith('plugconv_mm.registry needs mmengine, which is not installed. Install it with `pip')


def test_importing_is_cheap():
    done = run('import plugconv_mm, sys\n'
               'print([m for m in ("torch", "torchvision", "mmengine", "mmcv", "mmdet", "mmseg") if m in sys.modules])')
    assert done.stdout.strip() == '[]', done.stderr


@pytest.mark.slow
def test_mmdet_missing():
    pytest.importorskip('mmcv')
    done = run('from plugconv_mm.registry import MODELS\n'
               'from mmengine.registry import MODELS as ROOT\n'
               'print(MODELS.get("ParCResNet").__name__, ROOT.get("plugconv_mm.ParCResNet").__name__)\n'
               'def message(call):\n'
               '    try: call()\n'
               '    except ImportError as error: print(error)\n'
               'def direct(): from plugconv_mm.models import HorFPN\n'
               'def room(): from plugconv_mm.models.necks import HorFPN\n'
               'message(direct); message(room)\n'
               'message(lambda: MODELS.build(dict(type="HorFPN")))\n'
               'message(lambda: ROOT.build(dict(type="plugconv_mm.HorFPN")))\n', 'mmdet')
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if 'mmcv operators' not in line]
    assert lines[0] == 'ParCResNet ParCResNet'
    assert len(lines) == 5 and len(set(lines[1:])) == 1
    assert lines[1].startswith('HorFPN needs mmdet, which is not installed. Install it with `pip install ')


def test_package_there_but_broken(tmp_path, monkeypatch):
    (tmp_path / 'necks').mkdir()
    (tmp_path / 'necks' / '__init__.py').write_text(
        'from plugconv_mm.compat.packages import plug_ins\n'
        '__getattr__, __dir__, __all__ = plug_ins(__name__, a=["A"], b=["B"])')
    (tmp_path / 'necks' / 'a.py').write_text('import broken_package')
    (tmp_path / 'necks' / 'b.py').write_text('B = 1')
    (tmp_path / 'broken_package.py').write_text('raise AssertionError("MMCV==2.2.0 is used but incompatible")')
    monkeypatch.syspath_prepend(tmp_path)
    import necks
    assert {'A', 'B', '__name__'} <= set(dir(necks))
    assert necks.B == 1 and necks.__all__ == ['A', 'B']
    with pytest.raises(packages.MissingPackageError, match='A cannot be imported.*AssertionError: MMCV==2.2.0') as info:
        _ = necks.A
    assert isinstance(info.value.__cause__, AssertionError)
    with pytest.raises(AttributeError, match="'necks' has no attribute 'C'"):
        _ = necks.C


@pytest.fixture
def environment(monkeypatch):
    """Sets which distributions are installed."""
    def set_versions(**versions):
        versions = {name.replace('_', '-'): version for name, version in versions.items()}

        def version(name):
            if name in versions:
                return versions[name]
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, 'version', version)
    return set_versions


ONEDL = dict(torch='2.11.0+cu130', onedl_mmengine='0.10.12', onedl_mmcv='2.3.6', onedl_mmdetection='3.5.1',
             onedl_mmsegmentation='1.4.2', onedl_mmpretrain='1.3.6')
OPENMMLAB = dict(torch='2.6.0', mmengine='0.10.7', mmcv_lite='2.1.0', mmdet='3.3.0', mmsegmentation='1.2.2',
                 mmpretrain='1.2.0')
# The same with the compiled operators.
COMPILED = {name.replace('_lite', ''): version for name, version in OPENMMLAB.items()}


@pytest.mark.parametrize('versions', [ONEDL, OPENMMLAB, COMPILED, {}, dict(torch='2.9.0a0+git1234')], ids=str)
def test_supported_versions_are_quiet(environment, versions):
    environment(**versions)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        packages.check_versions()


@pytest.mark.parametrize('file', ['constraints.txt', 'constraints-openmmlab.txt', 'constraints-floor.txt'])
def test_the_pinned_versions_are_supported(environment, file):
    lines = (REQUIREMENTS / file).read_text().splitlines()
    if file == 'constraints-openmmlab.txt':
        shared = (REQUIREMENTS / 'constraints.txt').read_text().splitlines()
        lines += [line for line in shared if not line.startswith('onedl-')]
    environment(**dict(line.split('==') for line in lines if '==' in line))
    assert all(packages.installed_versions(name) for name in packages.PACKAGES)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        packages.check_versions()


@pytest.mark.parametrize('name', packages.PACKAGES)
def test_requirements_have_the_same_bounds(name):
    """From the oldest to the newest version that was tried: torch's bounds, and all others over both stacks."""
    declared = [Requirement(line) for file in ('runtime', 'onedl', 'openmmlab')
                for line in (REQUIREMENTS / f'{file}.txt').read_text().splitlines()
                if line and not line.startswith('#')]
    bounds = {operator: [tuple(map(int, specifier.version.split('.')[:2])) for requirement in declared
                         if requirement.name in packages.PACKAGES[name].distributions
                         for specifier in requirement.specifier if specifier.operator == operator]
              for operator in ('>=', '<')}
    package = packages.PACKAGES[name]
    assert (min(bounds['>=']), max(bounds['<'])) == (package.first, package.end)


def test_torch_is_bounded_by_what_was_tried(environment):
    for version in ('2.5.1', '2.12.0'):
        environment(torch=version)
        with pytest.warns(RuntimeWarning, match=rf"torch {version} is outside .*pip install 'torch>=2.6,<2.12'"):
            packages.check_versions()


def test_one_warning_about_everything(environment):
    environment(**{**COMPILED, 'torch': '1.13.1', 'mmdet': '2.28.2', 'mmengine': '1.0.0'}, onedl_mmcv='2.3.6')
    with pytest.warns(RuntimeWarning) as caught:
        packages.check_versions()
    assert len(caught) == 1
    message = str(caught[0].message)
    assert 'torch 1.13.1 is outside the supported versions' in message and "pip install 'torch>=2.6,<2.12'" in message
    assert "pip install 'mmdet>=3.3,<3.6'" in message and 'mmengine 1.0.0' in message
    assert 'onedl-mmcv 2.3.6 and mmcv 2.1.0 both provide `mmcv`' in message
    assert 'mmsegmentation' not in message


def test_mmcv_full_names_its_successor(environment):
    environment(mmcv_full='1.7.2')
    with pytest.warns(RuntimeWarning, match=r"mmcv-full 1.7.2 .*pip install 'mmcv>=2.1,<2.4'"):
        packages.check_versions()


@pytest.mark.parametrize('versions, expected', [
    (ONEDL, ('onedl-mmdetection', 'plugconv-mm[onedl]')),
    (OPENMMLAB, ('mmdet', 'plugconv-mm[openmmlab]')),
    ({}, ('onedl-mmdetection', 'plugconv-mm[onedl]')),
])
def test_install_help_stays_in_one_family(environment, versions, expected):
    environment(**versions)
    advice = packages.install_help('mmdet')
    assert f'`pip install {expected[0]}`' in advice and f"`pip install '{expected[1]}'`" in advice


def test_install_help_never_puts_mmcv_lite_over_mmcv(environment):
    environment(**COMPILED)
    assert packages.install_help('mmdet') == 'Install it with `pip install mmdet`.'
    environment(mmengine='0.10.7')
    assert '`pip install mmcv-lite`' in packages.install_help('mmcv')


@pytest.mark.parametrize('versions, expected', [
    (ONEDL, 'onedl-mmcv==2.3.6'), (OPENMMLAB, 'mmcv==2.1.0'), (COMPILED, 'mmcv==2.1.0')])
def test_build_help_names_the_mmcv_that_is_there(environment, versions, expected):
    environment(**versions)
    advice = packages.mmcv_build_help()
    assert f' {expected}`.' in advice
    assert ('`pip uninstall -y mmcv-lite`' in advice) == ('mmcv_lite' in versions)
