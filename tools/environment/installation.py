"""Steps of the installation into the environment."""
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from environment.failures import SetupError
from environment.site_packages import recorded_files, remove_files
from environment.stacks import REQUIREMENTS, ROOT
from environment.stamps import Step
from environment.venv import Environment

# What the tests and the demo need on top of a stack.
TOOLS = tuple(REQUIREMENTS / f'{name}.txt' for name in ('analysis', 'demo', 'evaluation', 'onnx', 'openvino', 'tests'))


class Installation:
    """The steps of one environment, and what they do."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.stack = environment.stack

    def setup_steps(self) -> tuple[Step, ...]:
        """The stack, what the tests and the demo need, and plugconv_mm."""
        torch, torchvision = (self.stack.pinned(name).replace('==', ' ') for name in ('torch', 'torchvision'))
        build, runtime = (REQUIREMENTS / f'{name}.txt' for name in ('build', 'runtime'))
        return (
            Step('venv', f'virtual environment in {self.environment.venv}', 'about 10 s', (build, ), self.make_venv),
            Step('torch', f'{torch}, {torchvision}', 'about 1 min, 3 GB', (*self.stack.pins, runtime),
                 self.install_torch),
            Step('stack', 'mmengine, mmcv, mmdet, mmseg, mmpretrain, tools', 'about 1 min',
                 (self.stack.requirements, *TOOLS), self.install_stack),
            Step('opencv', 'OpenCV without window system', 'about 5 s', (), self.install_opencv),
            Step('package', 'plugconv_mm, and a first import of everything', 'about 30 s',
                 (str(ROOT), ROOT / 'pyproject.toml', ROOT / 'setup.py', ROOT / 'plugconv_mm' / 'version.py'),
                 self.install_package),
        )

    def docs_step(self) -> Step:
        """Requirements of `make docs` on top of the set-up."""
        requirements = REQUIREMENTS / 'docs.txt'
        return Step('docs', 'Sphinx, for the documentation', 'about 10 s', (requirements, ),
                    lambda: self.environment.pip('--prefer-binary', '-r', str(requirements)))

    def mmcv_step(self) -> Step:
        """The compiled operators of mmcv.

        Raises:
            SetupError: If the stack holds mmcv-lite, which has none.
        """
        if self.stack.mmcv == 'mmcv-lite':
            raise SetupError(f'the stack {self.stack.name} holds mmcv-lite, which has no operators to compile.',
                             "go without, torchvision's take their place; or `make mmcv` with the default STACK=onedl.")
        return Step('mmcv', 'compiling the operators of mmcv', '8 to 10 min on 2 cores', (), self.build_mmcv)

    def make_venv(self) -> None:
        """Makes the virtual environment, from nothing where the folder is ours."""
        environment = self.environment
        if environment.ours:
            for path in environment.venv.iterdir():
                if path != environment.state:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            environment.run(sys.executable, '-m', 'venv', str(environment.venv))
        environment.pip('-r', str(REQUIREMENTS / 'build.txt'))

    def install_torch(self) -> None:
        self.environment.pip('--prefer-binary', '-r', str(REQUIREMENTS / 'runtime.txt'))

    def install_stack(self) -> None:
        # First and apart: built in isolation, without torch in sight, it takes seconds and compiles nothing. Not from
        # pip's cache, which may hold a wheel that was compiled against another torch.
        self.environment.pip('--no-cache-dir', '--no-deps', self.stack.pinned(self.stack.mmcv))
        files = [argument for file in (self.stack.requirements, *TOOLS) for argument in ('-r', str(file))]
        self.environment.pip('--prefer-binary', *files)

    def install_opencv(self) -> None:
        """Leaves the headless build of OpenCV alone in ``cv2``.

        The stack pulls in opencv-python and opencv-python-headless; both unpack into ``cv2`` and the last one wins.
        opencv-python needs libGL.so.1, libgthread-2.0.so.0 and X11 libraries, which servers and containers lack
        ("ImportError: libGL.so.1: cannot open shared object file"). Its metadata stays, so that pip does not bring
        it back for the packages that ask for it by name.
        """
        self.environment.pip('--force-reinstall', '--no-deps', self.stack.pinned('opencv-python-headless'))
        site_packages = self.environment.site_packages
        remove_files(site_packages, recorded_files(site_packages, 'opencv_python')
                     - recorded_files(site_packages, 'opencv_python_headless'))

    def install_package(self) -> None:
        """Installs plugconv_mm in place, and imports the whole stack once."""
        self.environment.pip('--no-deps', '--no-build-isolation', '-e', str(ROOT))
        self.environment.run(
            str(self.environment.python), '-c', 'import cv2, torch, torchvision, mmengine, mmcv, mmdet, mmseg, '
            'mmpretrain; import plugconv_mm; print("plugconv_mm", plugconv_mm.__version__)')

    # -- mmcv's compiled operators

    def compiled_mmcv(self) -> str | None:
        """Returns the versions that mmcv's compiled operators load with, or None where they do not."""
        return self.environment.output('-c', 'import torch, mmcv, mmcv._ext; print("mmcv", mmcv.__version__, '
                                       '"with torch", torch.__version__)')

    def build_mmcv(self) -> None:
        """Compiles mmcv against the environment's torch.

        Raises:
            SetupError: If there is nothing to compile it with.
        """
        if not any(map(shutil.which, (os.environ.get('CXX') or 'g++', 'c++'))):
            raise SetupError('there is no C++ compiler.', 'install one (on Debian and Ubuntu "apt install g++").')
        if not Path(sysconfig.get_paths()['include'], 'Python.h').is_file():
            raise SetupError('the C headers of Python are missing.', 'install them (on Debian and Ubuntu "apt install '
                             f'python{self.environment.version}-dev").')
        # While this runs the stack may be without mmcv: without the stamp, the next set-up looks.
        stack = self.environment.stamps.path('stack')
        value = stack.read_text(encoding='utf-8')
        stack.unlink()
        # Without debug symbols it takes half the time. -v for ninja's count, which the progress line shows. Never
        # from or into pip's cache: wheels there are told apart by mmcv's version alone, not by the torch they fit.
        self.environment.pip(
            '-v', '--no-cache-dir', '--no-build-isolation', '--force-reinstall', '--no-deps',
            self.stack.pinned(self.stack.mmcv), MMCV_WITH_OPS='1',
            CFLAGS=f'-g0 {os.environ.get("CFLAGS", "")}'.strip(),
            MAX_JOBS=os.environ.get('MAX_JOBS') or str(os.cpu_count()))
        stack.write_text(value, encoding='utf-8')
        self.environment.run(str(self.environment.python), '-c', 'import torch, mmcv._ext')
