"""The scripts that start trainings: what reaches train.py and test.py, and what is said where it cannot start."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script, *args, **environment):
    return subprocess.run([f'tools/{script}', *args], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, 'PYTHON': sys.executable, **environment})


def fake(folder, name):
    """A program that writes down what it is called with, and how PYTHONPATH begins."""
    program = folder / name
    program.write_text(f'#!{sys.executable}\nimport json, os, sys\n'
                       'print(json.dumps([sys.argv[1:], os.environ["PYTHONPATH"].split(":")[0]]))\n')
    program.chmod(0o755)
    return program


OPTIONS = ['--resume', '--cfg-options', 'a.b=an image', 'c="[1,2]"', 'd=$HOME * `x`']


@pytest.mark.parametrize(('script', 'given', 'expected'), [
    ('train', ['my config.py', 'work dir'], ['my config.py', '--work-dir', 'work dir']),
    ('test', ['my config.py', 'a file.pth'], ['my config.py', 'a file.pth']),
])
def test_slurm(tmp_path, script, given, expected):
    fake(tmp_path, 'srun')
    done = run(f'slurm_{script}.sh', 'gpu', 'a job', *given, *OPTIONS, PATH=f'{tmp_path}:{os.environ["PATH"]}',
               GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3', SRUN_ARGS='--quotatype=spot --mem 9G', PYTHON='py 3')
    assert done.returncode == 0, done.stderr
    called, path = json.loads(done.stdout)
    at = called.index('py 3')
    assert called[:at] == ['-p', 'gpu', '--job-name=a job', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4',
                           '--cpus-per-task=3', '--kill-on-bad-exit=1', '--quotatype=spot', '--mem', '9G']
    assert called[at + 1:] == ['-u', f'{ROOT}/tools/{script}.py', *expected, '--launcher', 'slurm', *OPTIONS]
    assert Path(path).resolve() == ROOT


@pytest.mark.parametrize(('script', 'given'), [('train', []), ('test', ['a file.pth'])])
def test_processes(tmp_path, script, given):
    config = tmp_path / 'my config.py'
    config.write_text('')
    done = run(f'dist_{script}.sh', str(config), *given, '3', *OPTIONS, PYTHON=str(fake(tmp_path, 'python')),
               NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.7', PORT='29541')
    assert done.returncode == 0, done.stderr
    called, path = json.loads(done.stdout)
    assert called == ['-m', 'torch.distributed.run', '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.7',
                      '--master_port=29541', '--nproc_per_node=3', f'{ROOT}/tools/{script}.py', str(config), *given,
                      '--launcher', 'pytorch', *OPTIONS]
    assert Path(path).resolve() == ROOT


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_usage(script):
    done = run(script, 'x')
    assert done.returncode == 2 and done.stderr.startswith(f'{script} ') and not done.stdout


@pytest.mark.parametrize('number', ['0', '-1', 'two', '', '1.5', '8 GPUs'])
@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_bad_number_of_processes(script, number):
    done = run(script, 'cfg.py', *(['c.pth'] if 'test' in script else []), number)
    assert done.returncode == 1
    assert done.stderr == (f'{script}: error: the number of processes should be a whole number from 1 on, got '
                           f"'{number}'\n")


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        done = run('dist_train.sh', 'cfg.py', '2', PORT=str(port))
    assert done.returncode == 1
    assert f'port {port} is taken' in done.stderr and f'PORT={port + 1}' in done.stderr


def test_a_config_that_is_not_there():
    """One message, as without processes."""
    done = run('dist_train.sh', 'configs/hornet/hornet-tiny-gf_32xb128_in1.py', '2', PORT='29542',
               PYTHONWARNINGS='ignore')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.count('there is no config') == 1 and 'hornet-tiny-gf_32xb128_in1k.py' in done.stderr
