"""A folder that looks like the repository, with small data sets, and programs that stand for what cannot run here."""
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / 'tests/helpers/docs_harness'
COPIED = ('benchmarks', 'configs', 'demo', 'docs', 'requirements', 'tools', 'Makefile', 'README.md', 'pyproject.toml',
          'setup.py')
STAND_INS = ('python', 'python3', 'torchrun', 'git', 'make', 'pip', 'apt', 'srun')
# Programs that are what they are.
PROGRAMS = ('bash', 'sh', 'env', 'awk', 'basename', 'cat', 'cp', 'dirname', 'du', 'find', 'grep', 'head', 'ln', 'ls',
            'mkdir', 'mv', 'rm', 'sed', 'sort', 'tail', 'tar', 'touch', 'tr', 'wc')
# Long enough for a busy machine; a command that needs a rule to be shorter takes longer.
SECONDS = 900


class Sandbox:
    """Runs commands in copies of the repository.

    Attributes:
        folder (Path): Of this test.
    """

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment

    def run(self, command, place):
        """Run a command in the shell; what it prints. A command that fails, fails the test."""
        try:
            done = subprocess.run([shutil.which('bash'), '-euo', 'pipefail', '-c', command], cwd=self.folder, text=True,
                                  env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=SECONDS)
        except subprocess.TimeoutExpired as late:
            pytest.fail(f'{place}: takes longer than {SECONDS} s:\n{command}\n'
                        f'{(late.stdout or b"").decode()[-2000:]}\n'
                        'LENGTHS and SMALL of tests/helpers/docs_harness/interpreter.py make commands shorter')
        if done.returncode:
            hint = ('\nno rule covers one of its programs: tests/test_docs/conftest.py lists those that there are'
                    if done.returncode == 127 else '')
            pytest.fail(f'{place}: ended with exit code {done.returncode}:\n{command}\n{done.stdout[-6000:]}{hint}')
        return done.stdout


@pytest.fixture(scope='session')
def repository(tmp_path_factory):
    """What the sandboxes are copies of; nothing in it leads back into the checkout but the package."""
    from plugconv_mm.runtime.dry_run import build_data
    folder = tmp_path_factory.mktemp('docs') / 'repository'
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns('__pycache__', '_build'))
        else:
            shutil.copy(source, folder)
    (folder / 'plugconv_mm').symlink_to(ROOT / 'plugconv_mm')
    (folder / 'work_dirs').mkdir()
    build_data(folder / 'data')
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope='session')
def environment(repository):
    """Of the commands: PATH holds the stand-ins and a few programs, and Python is forked from one that has started."""
    programs = repository.parent / 'bin'
    programs.mkdir()
    for name in STAND_INS:
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{HARNESS}/stand_ins.py" {name} "$@"\n')
        (programs / name).chmod(0o755)
    for name in PROGRAMS:
        if shutil.which(name):
            (programs / name).symlink_to(shutil.which(name))
    address = repository.parent / 'socket'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    variables = dict(
        PATH=str(programs), HOME=str(repository.parent), LANG='C.UTF-8', PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore',
        OMP_NUM_THREADS='1', MPLBACKEND='Agg', PORT=str(port), WANDB_MODE='offline', DOCS_INTERPRETER=str(address),
        DOCS_REPOSITORY=str(repository), DOCS_MAKE=shutil.which('make') or 'make')
    log = repository.parent / 'interpreter.log'
    with log.open('w') as file:
        server = subprocess.Popen(
            [sys.executable, HARNESS / 'interpreter.py', address], stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
            env={**variables, 'PATH': os.environ['PATH'], 'PYTHONPATH': f'{ROOT}:{ROOT / "tests/helpers"}'})
    while not address.exists():
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    yield variables
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, 9)
    server.wait()


@pytest.fixture
def sandbox(repository, environment, tmp_path):
    folder = tmp_path / 'plugconv-mm'
    shutil.copytree(repository, folder, symlinks=True)
    yield Sandbox(folder, environment)
    shutil.rmtree(folder)
