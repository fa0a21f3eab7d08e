"""Sets up the environment that `make demo` and `make test` share. Called by setup.sh; standard library only.

    VENV=.venv python3.11 tools/setup_env.py          # the pinned stack and plugconv_mm, in five steps
    VENV=.venv python3.11 tools/setup_env.py --mmcv   # mmcv's compiled operators on top
    VENV=.venv python3.11 tools/setup_env.py --docs   # what builds the documentation on top

Each finished step leaves a stamp under ``$VENV/.setup``: a hash of everything the step depends on. A step whose stamp
matches is not run again, so a second call returns at once, and an interrupted call resumes where it was.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / 'requirements'
CONSTRAINTS = REQUIREMENTS / 'constraints.txt'

# What the environment must not bring along: it would make pip see, or choose, packages outside the environment, or
# build mmcv in sight of torch (and so compile its operators, which takes ten minutes).
FOREIGN_VARIABLES = ('PYTHONPATH', 'PYTHONHOME', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_NO_BUILD_ISOLATION',
                     'PIP_REQUIRE_VIRTUALENV', 'PIP_REQUIREMENT', '__PYVENV_LAUNCHER__')

# The original OpenMMLab packages, which install the same modules as the onedl-* ones.
ORIGINAL_PACKAGES = ('mmcv', 'mmcv_full', 'mmcv_lite', 'mmengine', 'mmdet', 'mmsegmentation', 'mmpretrain')

# Well-known ways for a step to fail: what its output says, why, and what to try. The first match counts, so the
# consequences (no version found) come after their causes (no network).
FAILURES = (
    (r'No space left on device|Errno 28\b|Disk quota exceeded', 'the disk is full.',
     'free about 8 GB for {venv}, or name another folder with VENV=…; "{python} -m pip cache purge" empties pip\'s '
     'cache, which may hold 3 GB.'),
    (r'ensurepip is not available|No module named \'?(venv|ensurepip)', 'this Python comes without its venv module.',
     'install it (on Debian and Ubuntu "apt install python{version}-venv"), or name another Python with PYTHON=….'),
    (r'Permission denied|Errno 13\b|Read-only file system|Errno 30\b', 'a file or folder may not be written.',
     'see that {venv} belongs to you and is writable, or name another folder with VENV=….'),
    (r'DO NOT MATCH THE HASHES|BadZipFile|Wheel .* is invalid', 'a download arrived damaged.',
     'run "{python} -m pip cache purge", then the same command again.'),
    (r'Python\.h: No such file', 'the C headers of Python are missing.',
     'install them (on Debian and Ubuntu "apt install python{version}-dev").'),
    (r'MemoryError|Cannot allocate memory|Killed signal terminated program', 'the memory ran out.',
     'close other programs, or compile with fewer jobs at a time (MAX_JOBS=1), and run the same command again.'),
    (r'CERTIFICATE_VERIFY_FAILED|SSLError', 'the certificate of the package registry was not accepted.',
     "behind a company proxy, point PIP_CERT at your organisation's certificate file; also check the clock."),
    (r'ProxyError|Tunnel connection failed|Proxy Authentication', 'the proxy refused the connection.',
     'check HTTPS_PROXY, then run the same command again.'),
    (r'[Tt]emporary failure in name resolution|Name or service not known|nodename nor servname|NewConnectionError|'
     r'Failed to establish a new connection|Connection (refused|reset|aborted|broken)|Network is unreachable|'
     r'ConnectTimeoutError|ReadTimeoutError|[Rr]ead timed out|IncompleteRead',
     'the package registry cannot be reached.',
     'check the network (and HTTPS_PROXY or PIP_INDEX_URL if you use them), then run the same command again.'),
    (r'ResolutionImpossible|conflicting dependencies', 'the packages asked for do not fit together.',
     'take requirements/ as it is in the repository ("git status requirements" shows changes); if PIP_INDEX_URL names '
     'a mirror, see that it has the pinned versions.'),
    (r'No matching distribution found for (?P<what>\S+)|'
     r'Could not find a version that satisfies the requirement (?P<what2>\S+)',
     'the package registry offers no {what} for Python {version} on this platform.',
     'use Python 3.11 (PYTHON=…) on 64-bit Linux; if PIP_INDEX_URL names a mirror, see that it is complete.'),
)


class SetupError(Exception):
    """A sentence on what went wrong and one on what to try."""

    def __init__(self, message, advice):
        super().__init__(message)
        self.advice = advice


class Step(NamedTuple):
    """One step: its stamp's name, its title, how long it takes, what it depends on, and what it does."""
    name: str
    title: str
    about: str
    inputs: tuple
    action: object


def explain(output, returncode, **names):
    """Returns why a command failed and what to try, from its output and exit status."""
    for pattern, reason, advice in FAILURES:
        match = re.search(pattern, output)
        if match:
            what = next((group for group in match.groupdict().values() if group), '')
            return reason.format(what=what, **names), advice.format(what=what, **names)
    if returncode == -9:
        return 'the system ended it, probably because the memory ran out.', 'close other programs and run it again.'
    return f'it ended with status {returncode}.', 'read the output above, then run the same command again.'


def activity(output):
    """Returns what a running command is at, from its output so far: ninja's count or pip's last word."""
    counts = re.findall(r'^ *\[(\d+)/(\d+)\]', output, re.MULTILINE)
    if counts:
        return 'compiled {} of {} files'.format(*counts[-1])
    words = re.findall(r'^ *(Collecting|Downloading|Processing|Building wheel for|Installing) ([^\s(]+)', output,
                       re.MULTILINE)
    if not words:
        return ''
    verb, what = words[-1]
    return 'unpacking the packages' if verb == 'Installing' else f'{verb} {what.rsplit("/", 1)[-1]}'


def duration(seconds):
    """Formats seconds as people say them."""
    if seconds < 10:
        return f'{seconds:.1f} s'
    return f'{seconds:.0f} s' if seconds < 60 else f'{int(seconds) // 60} min {int(seconds) % 60} s'


def pinned(name):
    """Returns ``name==version`` as the constraints file pins it."""
    for line in CONSTRAINTS.read_text(encoding='utf-8').splitlines():
        if line.lower().startswith(f'{name}=='):
            return line.strip()
    raise SetupError(f'{CONSTRAINTS} does not pin {name}.', 'restore it: git checkout requirements/constraints.txt')


def digest(inputs, previous=''):
    """Hashes what a step depends on: strings, the contents of files, and the step before it."""
    sha = hashlib.sha256(previous.encode())
    for item in inputs:
        sha.update(item.read_bytes() if isinstance(item, Path) else item.encode())
        sha.update(b'\0')
    return sha.hexdigest()


def discard_half_installed(site_packages):
    """Removes what a killed pip left: folders it had set aside (``~name``), and packages without their file list.

    pip writes a package's RECORD last. Without it pip can neither uninstall the package nor know that files are
    missing, and would count it as installed; without the metadata it installs the package again.
    """
    for path in site_packages.glob('~*'):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for info in site_packages.glob('*.dist-info'):
        if not (info / 'RECORD').is_file():
            shutil.rmtree(info)


def recorded_files(site_packages, distribution):
    """Returns the files that pip lists for a distribution, without its metadata, or an empty set."""
    files = set()
    for record in site_packages.glob(f'{distribution}-*.dist-info/RECORD'):
        for line in record.read_text(encoding='utf-8').splitlines():
            name = line.rsplit(',', 2)[0].strip('"')
            if '.dist-info/' not in name and not name.startswith('..'):
                files.add(name)
    return files


class Environment:
    """The virtual environment under construction, its stamps, its lock and its log."""

    def __init__(self, venv):
        self.venv = Path(os.path.abspath(venv))
        self.python = self.venv / 'bin' / 'python'
        self.state = self.venv / '.setup'
        self.log = self.state / 'setup.log'
        # Beside the environment: /tmp is small on many machines, and here what a killed pip left is found again.
        self.temporary = self.state / 'tmp'
        self.version = '{}.{}'.format(*sys.version_info[:2])
        self.site_packages = self.venv / 'lib' / f'python{self.version}' / 'site-packages'
        self.lock = None
        self.interactive = sys.stdout.isatty()

    # -- preparing the folder

    def open(self):
        """Checks the folder, makes it ours where it is new, and takes the lock."""
        if self.venv.exists() and not self.venv.is_dir():
            raise SetupError(f'VENV={self.venv} is a file.', 'name a folder: VENV=.venv')
        taken = self.venv.is_dir() and any(self.venv.iterdir()) and not self.ours
        if taken and not (self.venv / 'pyvenv.cfg').is_file():
            raise SetupError(f'VENV={self.venv} exists and is no virtual environment.',
                             'name another folder with VENV=…, or empty this one.')
        if taken and not self.has_pip():
            raise SetupError(f'the virtual environment {self.venv} was made elsewhere, and its Python or pip does not '
                             'run.', 'delete the folder, or name another one with VENV=….')
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
    def ours(self):
        """Whether this script made the folder, and so may empty it."""
        return (self.state / 'ours').is_file()

    def has_pip(self):
        return self.output('-m', 'pip', '--version') is not None

    def check_python(self):
        """Compares the environment's Python with ours; forgets the stamps of an environment that broke."""
        if not self.stamp('venv').is_file() and self.ours:
            return
        version = self.output('-c', 'import sys; print("%d.%d" % sys.version_info[:2])')
        if version is None:
            print(f'the Python of {self.venv} does not start any more; making the environment anew', flush=True)
            self.forget_stamps()
        elif version != self.version:
            raise SetupError(f'{self.venv} holds Python {version}, and PYTHON is Python {self.version}.',
                             f'delete {self.venv}, or name another folder with VENV=….')

    def check_originals(self):
        """Refuses an environment that holds the original packages: the two families overwrite each other."""
        found = [info.name[:-len('.dist-info')] for name in ORIGINAL_PACKAGES
                 for info in self.site_packages.glob(f'{name}-[0-9]*.dist-info')]
        if found:
            raise SetupError(f'{self.venv} holds {", ".join(sorted(found))}, whose modules the onedl-* packages would '
                             'overwrite.', 'name another folder with VENV=…, or install only plugconv_mm into this '
                             f'environment: {self.python} -m pip install -e {ROOT}')

    # -- running commands

    def variables(self, **extra):
        """The environment variables for commands: as they are, without what points outside, pinned also in builds."""
        variables = {key: value for key, value in os.environ.items() if key not in FOREIGN_VARIABLES}
        variables.update(PIP_CONSTRAINT=str(CONSTRAINTS), PIP_BUILD_CONSTRAINT=str(CONSTRAINTS), PYTHONNOUSERSITE='1',
                         TMPDIR=str(self.temporary),
                         PATH=f'{self.venv / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}', **extra)
        return variables

    def output(self, *arguments):
        """Returns what the environment's Python prints, or None where it fails."""
        try:
            done = subprocess.run([str(self.python), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  stdin=subprocess.DEVNULL, env=self.variables(), check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.decode(errors='replace').strip()

    def pip(self, *arguments, **extra):
        """Runs the environment's pip.

        Without compiling bytecode: of 15,000 modules a few hundred are ever imported, and those are compiled then.
        """
        self.run(str(self.python), '-m', 'pip', '--disable-pip-version-check', '--no-input', 'install',
                 '--progress-bar', 'off', '--no-compile', *arguments, **extra)

    def run(self, *command, **extra):
        """Runs a command into the log, shows that it is alive, and explains a failure."""
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

    def heartbeat(self, seconds, doing):
        line = f'      {duration(seconds)}' + (f', {doing}' if doing else '')
        if self.interactive:
            print('\r\033[K' + line[:shutil.get_terminal_size().columns - 1], end='', flush=True)
        else:
            print(line, flush=True)

    def read_log(self, start):
        with open(self.log, 'rb') as log:
            log.seek(start)
            return log.read().decode(errors='replace')

    # -- stamps

    def stamp(self, name):
        return self.state / f'{name}.done'

    def forget_stamps(self):
        for stamp in self.state.glob('*.done'):
            stamp.unlink()

    def is_done(self, step, value):
        stamp = self.stamp(step.name)
        return stamp.is_file() and stamp.read_text(encoding='utf-8') == value

    def mark_done(self, step, value):
        # Renamed into place: a half-written stamp never counts.
        partial = self.state / f'{step.name}.partial'
        partial.write_text(value, encoding='utf-8')
        os.replace(partial, self.stamp(step.name))

    def execute(self, steps):
        """Runs the steps that are not done. Returns how many that were."""
        value, ran = '', 0
        for number, step in enumerate(steps, 1):
            value = digest((step.name, self.version, *step.inputs), value)
            if self.is_done(step, value):
                continue
            ran += 1
            print(f'[{number}/{len(steps)}] {step.title} ({step.about})', flush=True)
            self.stamp(step.name).unlink(missing_ok=True)
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
            self.mark_done(step, value)
            print(f'      done in {duration(time.monotonic() - began)}', flush=True)
        return ran

    # -- what the steps do

    def make_venv(self):
        """Makes the virtual environment, from nothing where the folder is ours."""
        if self.ours:
            for path in self.venv.iterdir():
                if path != self.state:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            self.run(sys.executable, '-m', 'venv', str(self.venv))
        self.pip('-c', str(CONSTRAINTS), '-r', str(REQUIREMENTS / 'build.txt'))

    def install_torch(self):
        self.pip('--prefer-binary', '-c', str(CONSTRAINTS), '-r', str(REQUIREMENTS / 'runtime.txt'))

    def install_stack(self):
        self.check_originals()
        # First and apart: built in isolation, without torch in sight, it takes seconds and compiles nothing. Not from
        # pip's cache, which may hold a wheel that was compiled against another torch.
        self.pip('--no-cache-dir', '--no-deps', '-c', str(CONSTRAINTS), pinned('onedl-mmcv'))
        self.pip('--prefer-binary', '-c', str(CONSTRAINTS), '-r', str(REQUIREMENTS / 'onedl.txt'),
                 '-r', str(REQUIREMENTS / 'tests.txt'))

    def install_opencv(self):
        """Leaves the headless build of OpenCV alone in ``cv2``.

        The stack pulls in opencv-python and opencv-python-headless; both unpack into ``cv2`` and the last one wins.
        opencv-python needs libGL.so.1, libgthread-2.0.so.0 and X11 libraries, which servers and containers lack
        ("ImportError: libGL.so.1: cannot open shared object file"). Its metadata stays, so that pip does not bring
        it back for the packages that ask for it by name.
        """
        self.pip('--force-reinstall', '--no-deps', pinned('opencv-python-headless'))
        headless = recorded_files(self.site_packages, 'opencv_python_headless')
        for name in recorded_files(self.site_packages, 'opencv_python') - headless:
            path = self.site_packages / name
            with contextlib.suppress(OSError):
                path.unlink()
                while True:  # up to the first folder that is not empty
                    path = path.parent
                    path.rmdir()

    def install_package(self):
        """Installs plugconv_mm in place, and imports the whole stack once."""
        self.pip('--no-deps', '--no-build-isolation', '-e', str(ROOT))
        self.run(str(self.python), '-c', 'import cv2, torch, torchvision, mmengine, mmcv, mmdet, mmseg, mmpretrain; '
                 'import plugconv_mm; print("plugconv_mm", plugconv_mm.__version__)')

    def setup_steps(self):
        torch, torchvision = (pinned(name).replace('==', ' ') for name in ('torch', 'torchvision'))
        requirements = [REQUIREMENTS / f'{name}.txt'
                        for name in ('build', 'runtime', 'onedl', 'analysis', 'demo', 'onnx', 'tests')]
        return (
            Step('venv', f'virtual environment in {self.venv}', 'about 10 s', (requirements[0], ), self.make_venv),
            Step('torch', f'{torch}, {torchvision}', 'about 1 min, 3 GB', (CONSTRAINTS, requirements[1]),
                 self.install_torch),
            Step('stack', 'mmengine, mmcv, mmdet, mmseg, mmpretrain, tools', 'about 1 min', tuple(requirements[2:]),
                 self.install_stack),
            Step('opencv', 'OpenCV without window system', 'about 5 s', (), self.install_opencv),
            Step('package', 'plugconv_mm, and a first import of everything', 'about 30 s',
                 (str(ROOT), ROOT / 'setup.py', ROOT / 'plugconv_mm' / 'version.py'),
                 self.install_package),
        )

    def docs_step(self):
        """What `make docs` needs on top of the set-up."""
        requirements = REQUIREMENTS / 'docs.txt'
        return Step('docs', 'Sphinx, for the documentation', 'about 10 s', (requirements, ),
                    lambda: self.pip('--prefer-binary', '-c', str(CONSTRAINTS), '-r', str(requirements)))

    # -- mmcv's compiled operators

    def compiled_mmcv(self):
        """Returns the versions that mmcv's compiled operators load with, or None where they do not."""
        return self.output('-c', 'import torch, mmcv, mmcv._ext; print("mmcv", mmcv.__version__, "with torch", '
                           'torch.__version__)')

    def build_mmcv(self):
        """Compiles mmcv against the environment's torch."""
        if not any(map(shutil.which, (os.environ.get('CXX') or 'g++', 'c++'))):
            raise SetupError('there is no C++ compiler.', 'install one (on Debian and Ubuntu "apt install g++").')
        if not Path(sysconfig.get_paths()['include'], 'Python.h').is_file():
            raise SetupError('the C headers of Python are missing.',
                             f'install them (on Debian and Ubuntu "apt install python{self.version}-dev").')
        # While this runs the stack may be without mmcv: without the stamp, the next set-up looks.
        stack = self.stamp('stack')
        value = stack.read_text(encoding='utf-8')
        stack.unlink()
        # Without debug symbols it takes half the time. -v for ninja's count, which the progress line shows. Never
        # from or into pip's cache: wheels there are told apart by mmcv's version alone, not by the torch they fit.
        self.pip('-v', '--no-cache-dir', '--no-build-isolation', '--force-reinstall', '--no-deps',
                 pinned('onedl-mmcv'), MMCV_WITH_OPS='1', CFLAGS=f'-g0 {os.environ.get("CFLAGS", "")}'.strip(),
                 MAX_JOBS=os.environ.get('MAX_JOBS') or str(os.cpu_count()))
        stack.write_text(value, encoding='utf-8')
        self.run(str(self.python), '-c', 'import torch, mmcv._ext')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--mmcv', action='store_true', help='compile the operators of mmcv into the environment')
    parser.add_argument('--docs', action='store_true', help='install what builds the documentation, too')
    args = parser.parse_args()
    began = time.monotonic()
    environment = Environment(os.environ.get('VENV') or ROOT / '.venv')
    try:
        environment.open()
        ran = environment.execute((*environment.setup_steps(), *([environment.docs_step()] if args.docs else [])))
        seconds = time.monotonic() - began
        (environment.state / 'seconds').write_text(f'{seconds:.1f}\n', encoding='utf-8')
        state = 'complete' if ran else 'up to date'
        print(f'set-up of {environment.venv} {state} ({duration(seconds)})', flush=True)
        if args.mmcv:
            if environment.compiled_mmcv() is None:
                environment.stamp('mmcv').unlink(missing_ok=True)
                environment.execute((Step('mmcv', 'compiling the operators of mmcv', '8 to 10 min on 2 cores', (),
                                          environment.build_mmcv), ))
            print(f'the compiled operators load: {environment.compiled_mmcv()}. plugconv_mm uses them from now on; '
                  'PLUGCONV_MMCV_OPS=torchvision goes without.', flush=True)
    except SetupError as error:
        print(f'{error}\nWhat to try: {error.advice}', file=sys.stderr)
        return 1
    except OSError as error:
        reason, advice = explain(str(error), 1, venv=environment.venv, python=environment.python,
                                 version=environment.version)
        print(f'{error}: {reason}\nWhat to try: {advice}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up interrupted; the same command resumes it', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
