"""What stands on PATH for programs that would need a network, a cluster, root or minutes: their arguments are checked.

Called by a wrapper of the program's name: ``stand_ins.py NAME ARGUMENTS``. Nothing slow is imported.
"""
import argparse
import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path

# Packages that the pages name and that are no requirement of ours.
OTHERS = {'tensorboard', 'wandb'}


def python(arguments):
    """Hands over to a process forked from one that has imported all there is (interpreter.py)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ['DOCS_INTERPRETER'])
        socket.send_fds(connection, [b'.'], [0, 1, 2])
        request = dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
        connection.sendall(json.dumps(request).encode() + b'\n')
        return int(connection.makefile().readline() or 70)


python3 = python


def torchrun(arguments):
    return python(['-m', 'torch.distributed.run', *arguments])


def git(arguments):
    """A clone is a copy of the sandbox."""
    if arguments == ['lfs', 'pull']:
        return
    if len(arguments) != 3 or arguments[0] != 'clone':
        sys.exit(f'git stands for `git clone ADDRESS FOLDER` and `git lfs pull` only, got {arguments}')
    shutil.copytree(os.environ['DOCS_REPOSITORY'], arguments[2], symlinks=True)


def make(arguments):
    """The targets have to be there; what they run is printed only. `make` alone, which lists them, is run."""
    os.execv(os.environ['DOCS_MAKE'], ['make', *(['-n'] if arguments else []), *arguments])


def pip(arguments):
    """Requirements have to be among those of requirements/ or OTHERS, extras in pyproject.toml, files there."""
    parser = argparse.ArgumentParser('pip')
    parser.add_argument('command', choices=['install'])
    parser.add_argument('requirements', nargs='*')
    parser.add_argument('-e', '--editable', action='append', default=[])
    parser.add_argument('-r', '-c', '--requirement', '--constraint', dest='files', action='append', default=[])
    for flags in (['-U', '--upgrade'], ['--force-reinstall'], ['--no-deps'], ['-q', '--quiet']):
        parser.add_argument(*flags, action='store_true')
    args = parser.parse_intermixed_args(arguments)
    root = Path(os.environ['DOCS_REPOSITORY'])
    for file in args.files:
        if not Path(file).is_file():
            sys.exit(f'pip: there is no file {file}')
    extras = set(re.findall(r'^optional-dependencies\.(\w+) = ', (root / 'pyproject.toml').read_text(), re.M))
    lines = [line for file in (root / 'requirements').glob('*.txt') for line in file.read_text().splitlines()]
    known = OTHERS | {re.split(r'[^\w.-]', line)[0].lower().replace('_', '-') for line in lines}
    for given in [*args.requirements, *args.editable]:
        name, wanted = re.fullmatch(r'([\w.-]+)(?:\[([\w,]+)\])?(?:[<=>!~].*)?', given).groups()
        if name in ('.', 'plugconv-mm'):
            unknown = set(filter(None, (wanted or '').split(','))) - extras
        else:
            unknown = {name.lower().replace('_', '-')} - known
        if unknown:
            sys.exit(f'pip: {given}: {", ".join(unknown)} is no requirement and no extra of this project; extras are '
                     f'{", ".join(sorted(extras))}')


def apt(arguments):
    if len(arguments) < 2 or arguments[0] != 'install' or not all(
            re.fullmatch(r'[a-z0-9][a-z0-9.+-]+', name) for name in arguments[1:]):
        sys.exit(f'apt stands for `apt install PACKAGE ...` only, got {arguments}')


def srun(arguments):
    """Checks its own options and runs one task, without the launcher, which needs GPUs."""
    parser = argparse.ArgumentParser('srun')
    parser.add_argument('-p', '--partition', required=True)
    for name in ('job-name', 'gres', 'kill-on-bad-exit'):
        parser.add_argument(f'--{name}', required=True)
    for name in ('ntasks', 'ntasks-per-node', 'cpus-per-task'):
        parser.add_argument(f'--{name}', required=True, type=int)
    parser.add_argument('-x', '--exclude')
    parser.add_argument('--time')
    parser.add_argument('program', nargs=argparse.REMAINDER)
    program = parser.parse_args(arguments).program
    if '--launcher' not in program or program[program.index('--launcher') + 1] != 'slurm':
        sys.exit(f'srun: --launcher slurm was expected in {program}')
    program[program.index('--launcher') + 1] = 'none'
    os.execvp(program[0], program)


if __name__ == '__main__':
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
