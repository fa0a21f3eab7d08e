"""New environments of the versions that the default one does not hold: the original stack, the oldest torch.

Each is installed by pip as a user would, from a copy of the sources and with the constraints of its own, and a part of
the tests runs in it.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize('extra, constraints, tests', [
    pytest.param('openmmlab', 'constraints-openmmlab.txt',
                 ['tests/test_configs', 'tests/test_compat', 'tests/test_tools/test_train_test.py',
                  'tests/test_tools/test_image_demo.py', 'tests/test_tools/test_get_flops.py'], id='openmmlab'),
    pytest.param('onedl', 'constraints-floor.txt', ['tests/test_ops', 'tests/test_tools/test_train_test.py'],
                 id='floor'),
])
def test_environment(extra, constraints, tests, tmp_path):
    """Downloads 3 GB and takes 6 GB of the disk. The original stack took 14 minutes on two busy cores."""
    source, python = tmp_path / 'source', tmp_path / 'venv' / 'bin' / 'python'
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(
        '.git', '.venv*', 'data', 'work_dirs', 'build', '.mim', '__pycache__', '_build'))
    (source / 'work_dirs').mkdir()
    variables = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'PIP_CONSTRAINT'))}
    variables.update(OMP_NUM_THREADS='1', PIP_CONSTRAINT=str(source / 'requirements' / constraints))

    def run(*command):
        done = subprocess.run(command, cwd=source, env=variables, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    try:
        run(sys.executable, '-m', 'venv', str(python.parents[1]))
        pip = (str(python), '-m', 'pip', '--no-input', 'install', '--progress-bar', 'off', '--no-compile')
        run(*pip, '--prefer-binary', '-e', f'.[{extra},tests]')
        # As the documentation says: the build of OpenCV that needs no window system, last.
        run(*pip, '--force-reinstall', '--no-deps', 'opencv-python-headless')
        closing = run(str(python), '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *tests).splitlines()[-1]
        assert ' passed' in closing and 'failed' not in closing, closing
    finally:
        shutil.rmtree(tmp_path)
