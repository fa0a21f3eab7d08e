"""What pyproject.toml, setup.py, requirements/ and the Makefile declare."""
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
MMCV_NAMES = {'mmcv', 'mmcv-full', 'mmcv-lite', 'onedl-mmcv'}


@pytest.fixture(scope='module')
def metadata():
    """What setuptools reads from pyproject.toml."""
    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)
    distribution = setuptools.Distribution()
    distribution.parse_config_files()
    patch.undo()
    return dict(name=distribution.get_name(), version=distribution.get_version(), packages=distribution.packages,
                install_requires=distribution.install_requires, extras_require=distribution.extras_require,
                python_requires=str(distribution.python_requires), classifiers=distribution.get_classifiers())


def pins(name):
    """The versions that a file of requirements/ pins for this Python, and those of the files that it includes."""
    found = {}
    for line in (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines():
        if line.startswith('-c '):
            found.update(pins(line[3:]))
        elif line and not line.startswith('#'):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                package, version = canonicalize_name(requirement.name), str(requirement.specifier)
                assert version.startswith('==') and package not in found, f'{line}: one version of each, by =='
                found[package] = version[2:]
    return found


@pytest.fixture(scope='module')
def constraints():
    return pins('constraints.txt')


def names(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_metadata(metadata):
    from plugconv_mm import __version__
    assert metadata['name'] == 'plugconv-mm'
    assert metadata['version'] == __version__
    assert {'plugconv_mm', 'plugconv_mm.ops', 'plugconv_mm.models.backbones'} <= set(metadata['packages'])
    assert all(package.split('.')[0] == 'plugconv_mm' for package in metadata['packages'])


def test_version_is_read_without_torch():
    code = ("import sys, setuptools; setuptools.Distribution().parse_config_files();"
            "sys.exit('torch' in sys.modules or 'plugconv_mm' in sys.modules)")
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def test_pip_never_brings_a_second_mmcv(metadata):
    assert {'torch', 'torchvision', 'numpy'} <= names(metadata['install_requires'])
    assert not names(metadata['install_requires']) & (MMCV_NAMES | {'mmengine', 'onedl-mmengine'})
    for extra, requirements in metadata['extras_require'].items():
        assert len(names(requirements) & MMCV_NAMES) == (extra in ('onedl', 'openmmlab')), extra
    original, continued = (names(metadata['extras_require'][extra]) for extra in ('openmmlab', 'onedl'))
    assert not any(name.startswith('onedl') for name in original)
    assert not continued & original


@pytest.mark.parametrize('stack, file', [('onedl', 'constraints.txt'), ('openmmlab', 'constraints-openmmlab.txt')])
def test_constraints_pin_every_tested_requirement(metadata, stack, file):
    tested, constraints = list(metadata['install_requires']), pins(file)
    for extra in (stack, 'demo', 'tests', 'dev', 'docs'):
        tested += metadata['extras_require'][extra]
    for line in tested:
        requirement = Requirement(line)
        assert constraints[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_constraints_are_what_is_installed(constraints):
    """The environment of `make test` holds the pinned versions of what the tests depend on most."""
    if not (Path(sys.prefix) / '.setup' / 'stack.done').is_file():
        pytest.skip('not the environment that `make setup` makes')
    from importlib.metadata import PackageNotFoundError, version
    stack = ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain')
    try:
        version(stack[0])
    except PackageNotFoundError:
        stack, constraints = ('mmengine', 'mmdet', 'mmsegmentation', 'mmpretrain'), pins('constraints-openmmlab.txt')
    for name in ('torch', 'torchvision', 'numpy', 'opencv-python-headless', *stack):
        assert version(name).split('+')[0] == constraints[name], name


def test_cv2_needs_no_window_system():
    """Where `make setup` made the environment, the headless OpenCV is the one in ``cv2``."""
    if not (Path(sys.prefix) / '.setup' / 'opencv.done').is_file():
        pytest.skip('not the environment that `make setup` makes')
    import cv2
    from cv2 import version
    assert version.headless
    assert not (Path(cv2.__file__).parent / 'qt').exists()


def test_built_package_serves_mim(tmp_path):
    """build_py puts configs, tools and the index where mim and mmengine look for them."""
    code = ("import sys; sys.argv = ['setup.py', '-q', 'build_py', '-d', sys.argv[1]];"
            "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py', '__name__': 'x'})")
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / 'plugconv_mm' / 'version.py').is_file()
    assert (tmp_path / 'plugconv_mm' / 'py.typed').is_file()
    mim = tmp_path / 'plugconv_mm' / '.mim'
    assert (mim / 'tools' / 'setup_env.py').is_file()
    assert_index_leads_to_configs(mim)


def assert_index_leads_to_configs(mim):
    listed = set()
    for metafile in yaml.safe_load((mim / 'model-index.yml').read_text(encoding='utf-8'))['Import']:
        for model in yaml.safe_load((mim / metafile).read_text(encoding='utf-8'))['Models']:
            assert (mim / model['Config']).is_file(), model['Config']
            listed.add(model['Config'])
    assert len(listed) > 100
    assert not list(mim.rglob('__pycache__'))


@pytest.mark.slow
def test_wheel_holds_everything(tmp_path):
    """A wheel and an sdist hold the index, every config and what the configs build on."""
    code = ('import sys; from setuptools import build_meta; folder = sys.argv[1]; build_meta.build_sdist(folder);'
            'build_meta.build_wheel(folder)')
    source = tmp_path / 'source'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.git', '.venv*', 'data', 'work_dirs', 'build', '.mim'))
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=source, check=True, capture_output=True)
    wheel, = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'installed')
    mim = tmp_path / 'installed' / 'plugconv_mm' / '.mim'
    assert_index_leads_to_configs(mim)
    for kind in ('*.py', '*.yml', '*.md'):
        there = {path.relative_to(source / 'configs') for path in (source / 'configs').rglob(kind)}
        assert {path.relative_to(mim / 'configs') for path in (mim / 'configs').rglob(kind)} == there
    sdist, = tmp_path.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {'model-index.yml', 'configs/hornet/metafile.yml', 'configs/hornet/README.md', 'tools/train.py'} <= names


def test_readme_makefile_and_ci_agree():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'^([a-z-]+):', makefile, re.MULTILINE))
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    commands = set(re.findall(r'^(?:[A-Z]+=\S+ )*make ([a-z-]+)', readme, re.MULTILINE))
    assert {'demo', 'test'} <= commands <= targets
    assert re.search(r'^make test\b', (ROOT / '.ci' / 'run').read_text(encoding='utf-8'), re.MULTILINE)
    for target in ('demo', 'test', 'test-slow', 'lint', 'types'):
        assert re.search(rf'^{target}: setup\b', makefile, re.MULTILINE), f'{target} does not set up by itself'


def test_make_alone_lists_the_targets():
    listing = subprocess.run(['make', '-C', str(ROOT)], check=True, capture_output=True, text=True).stdout
    for target in ('demo', 'test', 'setup', 'mmcv'):
        assert f'make {target}' in listing


def test_the_workflow_covers_what_is_declared(metadata):
    """Each Python of the metadata with each stack, by targets of make."""
    job = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text(encoding='utf-8'))['jobs']['test']
    declared = re.findall(r'Python :: (3\.\d+)', '\n'.join(metadata['classifiers']))
    assert job['strategy']['matrix'] == dict(python=declared, stack=['onedl', 'openmmlab'])
    assert metadata['python_requires'] == f'>={declared[0]}'
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for command in filter(None, (step.get('run') for step in job['steps'])):
        assert re.search(rf'^{command.removeprefix("make ")}:', makefile, re.MULTILINE), command


def test_pre_commit_has_the_pinned_ruff(constraints):
    hooks, = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))['repos']
    assert hooks['rev'] == f'v{constraints["ruff"]}'


@pytest.mark.parametrize('failing', [None, 'lint', 'types', 'test'])
def test_the_check_fails_where_one_of_its_parts_does(tmp_path, failing):
    """Lint, types and tests all run; pytest's closing line is the last, and the status says whether one failed."""
    (tmp_path / '.ci').mkdir()
    shutil.copy(ROOT / '.ci' / 'run', tmp_path / '.ci')
    (tmp_path / 'make').write_text('#!/bin/sh\necho "make $1"\n[ "$1" != test ] || echo "== 3 passed in 1.00s =="\n'
                                   f'[ "$1" != "{failing}" ]\n', encoding='utf-8')
    (tmp_path / 'make').chmod(0o755)
    done = subprocess.run(['bash', str(tmp_path / '.ci' / 'run')], capture_output=True, text=True,
                          env={**os.environ, 'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
    lines = done.stdout.splitlines()
    assert lines[-1] == '== 3 passed in 1.00s =='
    assert {'make lint', 'make types', 'make test'} <= set(lines)
    assert (done.returncode != 0) == (failing is not None)
