"""The two stacks of OpenMMLab packages that an environment can hold, and the versions pinned for each."""
from pathlib import Path
from typing import NamedTuple

from environment.failures import SetupError

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'


class Stack(NamedTuple):
    """A family of packages that provide ``mmengine``, ``mmcv``, ``mmdet``, ``mmseg`` and ``mmpretrain``."""

    name: str  # of the extra, of its file in requirements/, and what STACK takes
    mmcv: str  # the distribution that provides mmcv
    distributions: tuple[str, ...]  # names of the packages' metadata folders
    pins: tuple[Path, ...]  # the constraints file that pip is given, and the files that it includes

    @property
    def requirements(self) -> Path:
        return REQUIREMENTS / f'{self.name}.txt'

    @property
    def constraints(self) -> Path:
        return self.pins[0]

    def pinned(self, name: str) -> str:
        """Returns ``name==version`` as the constraints pin it.

        Raises:
            SetupError: If they do not.
        """
        for file in self.pins:
            for line in file.read_text(encoding='utf-8').splitlines():
                if line.lower().startswith(f'{name}=='):
                    return line.strip()
        raise SetupError(f'{self.constraints} does not pin {name}.',
                         f'restore it: git checkout requirements/{self.constraints.name}')


_PINS = REQUIREMENTS / 'constraints.txt'
STACKS = {
    stack.name: stack for stack in (
        Stack('onedl', 'onedl-mmcv',
              ('onedl_mmcv', 'onedl_mmengine', 'onedl_mmdetection', 'onedl_mmsegmentation', 'onedl_mmpretrain'),
              (_PINS, )),
        Stack('openmmlab', 'mmcv-lite',
              ('mmcv', 'mmcv_full', 'mmcv_lite', 'mmengine', 'mmdet', 'mmsegmentation', 'mmpretrain'),
              (REQUIREMENTS / 'constraints-openmmlab.txt', _PINS)),
    )
}


def choose_stack(name: str) -> Stack:
    """Returns the stack called ``name``.

    Raises:
        SetupError: If there is none.
    """
    if name not in STACKS:
        raise SetupError(f'STACK={name} is no stack.', f'STACK is one of {", ".join(STACKS)}; onedl is the default.')
    return STACKS[name]


def default_folder(stack: Stack) -> Path:
    """Returns where the environment goes without VENV. A folder for each stack: an environment holds one of them."""
    return ROOT / ('.venv' if stack.name == 'onedl' else f'.venv-{stack.name}')
