"""The virtual environment under construction: its folder, its lock, its log, and the commands that run in it."""
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from environment.failures import SetupError, explain
from environment.progress import activity, duration
from environment.site_packages import discard_half_installed
from environment.stacks import ROOT, STACKS, Stack
from environment.stamps import Stamps, Step, digest

# What the environment must not bring along: it would make pip see, or choose, packages outside the environment, or
# build mmcv in sight of torch (and so compile its operators, which takes ten minutes).
FOREIGN_VARIABLES = ('PYTHONPATH', 'PYTHONHOME', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_NO_BUILD_ISOLATION',
                     'PIP_REQUIRE_VIRTUALENV', 'PIP_REQUIREMENT', '__PYVENV_LAUNCHER__')


class Environment:
    """A virtual environment, for one stack of OpenMMLab packages."""

    def __init__(self, venv: str | Path, stack: Stack) -> None:
        self.venv = Path(os.path.abspath(venv))
        self.stack = stack
        self.python = self.venv / 'bin' / 'python'
        self.state = self.venv / '.setup'
        self.stamps = Stamps(self.state)
        self.log = self.state / 'setup.log'
        # Beside the environment: /tmp is small on many machines, and here what a killed pip left is found again.
        self.temporary = self.state / 'tmp'
        self.version = '{}.{}'.format(*sys.version_info[:2])
        self.site_packages = self.venv / 'lib' / f'python{self.version}' / 'site-packages'
        self.lock = None
        self.interactive = sys.stdout.isatty()

    # -- preparing the folder

    def open(self) -> None:
        """Checks the folder, makes it ours where it is new, and takes the lock.

        Raises:
            SetupError: If the folder cannot serve.
        """
        if self.venv.exists() and not self.venv.is_dir():
            raise SetupError(f'VENV={self.venv} is a file.', 'name a folder: VENV=.venv')
        taken = self.venv.is_dir() and any(self.venv.iterdir()) and not self.ours
        if taken and not (self.venv / 'pyvenv.cfg').is_file():
            raise SetupError(f'VENV={self.venv} exists and is no virtual environment.',
                             'name another folder with VENV=…, or empty this one.')
        if taken and not self.has_pip():
            raise SetupError(f'the virtual environment {self.venv} was made elsewhere, and its Python or pip does not '
                             'run.', 'delete the folder, or name another one with VENV=….')
        self.check_other_stacks()
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            if not taken:
                (self.state / 'ours').touch()
            self.lock = open(self.state / 'lock', 'a', encoding='utf-8')
        except OSError as error:
            raise SetupError(f'{self.venv} cannot be written: {error.strerror}.',
                             'name another folder with VENV=….') from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Commands inherit the lock: after a kill, this waits for the pip that was left behind.
            print(f'another set-up of {self.venv} is still at work; waiting for it to end', flush=True)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.check_python()

    @property
    def ours(self) -> bool:
        """Whether the set-up made the folder, and so may empty it."""
        return (self.state / 'ours').is_file()

    def has_pip(self) -> bool:
        return self.output('-m', 'pip', '--version') is not None

    def check_python(self) -> None:
        """Compares the environment's Python with ours; forgets the stamps of an environment that broke.

        Raises:
            SetupError: If the environment holds another version.
        """
        if not self.stamps.path('venv').is_file() and self.ours:
            return
        version = self.output('-c', 'import sys; print("%d.%d" % sys.version_info[:2])')
        if version is None:
            print(f'the Python of {self.venv} does not start any more; making the environment anew', flush=True)
            self.stamps.forget()
        elif version != self.version:
            raise SetupError(f'{self.venv} holds Python {version}, and PYTHON is Python {self.version}.',
                             f'delete {self.venv}, or name another folder with VENV=….')

    def check_other_stacks(self) -> None:
        """Refuses an environment that holds packages of another stack: they overwrite each other's modules.

        Raises:
            SetupError: If it does.
        """
        for stack in STACKS.values():
            found = [] if stack == self.stack else [
                info.name[:-len('.dist-info')] for name in stack.distributions
                for info in self.venv.glob(f'lib/python3.*/site-packages/{name}-[0-9]*.dist-info')]
            if found:
                raise SetupError(
                    f'{self.venv} holds {", ".join(sorted(found))}, whose modules the packages of the stack '
                    f'{self.stack.name} would overwrite.',
                    f'name another folder with VENV=… (without VENV, each stack has one of its own), set up the stack '
                    f'that is there with STACK={stack.name}, or install only plugconv_mm into this environment: '
                    f'{self.python} -m pip install -e {ROOT}')

    # -- running commands

    def variables(self, **extra: str) -> dict[str, str]:
        """The environment variables for commands: as they are, without what points outside, pinned also in builds."""
        constraints = str(self.stack.constraints)
        variables = {key: value for key, value in os.environ.items() if key not in FOREIGN_VARIABLES}
        variables.update(PIP_CONSTRAINT=constraints, PIP_BUILD_CONSTRAINT=constraints, PYTHONNOUSERSITE='1',
                         TMPDIR=str(self.temporary),
                         PATH=f'{self.venv / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}', **extra)
        return variables

    def output(self, *arguments: str) -> str | None:
        """Returns what the environment's Python prints, or None where it fails."""
        try:
            done = subprocess.run([str(self.python), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  stdin=subprocess.DEVNULL, env=self.variables(), check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.decode(errors='replace').strip()

    def pip(self, *arguments: str, **extra: str) -> None:
        """Runs ``pip install`` of the environment, with the pinned versions and ``extra`` environment variables.

        Without compiling bytecode: of 15,000 modules a few hundred are ever imported, and those are compiled then.
        """
        self.run(str(self.python), '-m', 'pip', '--disable-pip-version-check', '--no-input', 'install',
                 '--progress-bar', 'off', '--no-compile', '-c', str(self.stack.constraints), *arguments, **extra)

    def run(self, *command: str, **extra: str) -> None:
        """Runs a command into the log, and shows that it is alive.

        Raises:
            SetupError: If it fails, with the reason as far as its output shows it.
        """
        with open(self.log, 'ab') as log:
            start = log.tell()
            log.write(('$ ' + ' '.join(command) + '\n').encode())
            log.flush()
            try:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                           env=self.variables(**extra), cwd=self.state, pass_fds=(self.lock.fileno(),))
            except OSError as error:
                raise SetupError(f'{command[0]} does not run: {error.strerror}.', 'see that it exists.') from error
        began = shown = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.1)
                now = time.monotonic()
                if now - shown >= (1 if self.interactive else 30):
                    shown = now
                    self.heartbeat(now - began, activity(self.read_log(start)))
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            if self.interactive:
                print('\r\033[K', end='', flush=True)
        if process.returncode:
            output = self.read_log(start)
            print('\n'.join('    | ' + line for line in output.splitlines()[-15:]), flush=True)
            raise SetupError(*explain(output, process.returncode, venv=self.venv, python=self.python,
                                      version=self.version))

    def heartbeat(self, seconds: float, doing: str) -> None:
        line = f'      {duration(seconds)}' + (f', {doing}' if doing else '')
        if self.interactive:
            print('\r\033[K' + line[:shutil.get_terminal_size().columns - 1], end='', flush=True)
        else:
            print(line, flush=True)

    def read_log(self, start: int) -> str:
        with open(self.log, 'rb') as log:
            log.seek(start)
            return log.read().decode(errors='replace')

    # -- running steps

    def execute(self, steps: Iterable[Step]) -> int:
        """Runs the steps that are not done. Returns how many that were.

        Raises:
            SetupError: If one fails, with its number and title.
        """
        steps, value, ran = tuple(steps), '', 0
        for number, step in enumerate(steps, 1):
            value = digest((step.name, self.version, *step.inputs), value)
            if self.stamps.is_done(step.name, value):
                continue
            ran += 1
            print(f'[{number}/{len(steps)}] {step.title} ({step.about})', flush=True)
            self.stamps.path(step.name).unlink(missing_ok=True)
            began = time.monotonic()
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir()
            try:
                if self.ours:
                    discard_half_installed(self.site_packages)
                step.action()
            except SetupError as error:
                raise SetupError(f'step {number} of {len(steps)}, {step.title}, failed: {error}',
                                 f'{error.advice}\nThe steps before it are kept. The full output is in '
                                 f'{self.log}') from error
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.stamps.mark_done(step.name, value)
            print(f'      done in {duration(time.monotonic() - began)}', flush=True)
        return ran
