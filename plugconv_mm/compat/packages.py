"""The packages beside us: which versions we support, and what to say when one of them is missing or broken."""
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from plugconv_mm.errors import MissingPackageError


class Package(NamedTuple):
    """A package we work with: who distributes it (the continuation first), and the supported versions."""

    distributions: tuple[str, ...]
    first: tuple[int, int]  # lowest supported version
    end: tuple[int, int]  # lowest version beyond

    @property
    def versions(self) -> str:
        return f'>={self.first[0]}.{self.first[1]},<{self.end[0]}.{self.end[1]}'


# From the oldest to the newest version that was tried, over both stacks; requirements/ has the same bounds.
PACKAGES = {
    'torch': Package(('torch', ), (2, 6), (2, 12)),
    'mmengine': Package(('onedl-mmengine', 'mmengine', 'mmengine-lite'), (0, 10), (0, 11)),
    'mmcv': Package(('onedl-mmcv', 'mmcv-lite', 'mmcv', 'mmcv-full'), (2, 1), (2, 4)),
    'mmdet': Package(('onedl-mmdetection', 'mmdet'), (3, 3), (3, 6)),
    'mmseg': Package(('onedl-mmsegmentation', 'mmsegmentation'), (1, 2), (1, 5)),
    'mmpretrain': Package(('onedl-mmpretrain', 'mmpretrain'), (1, 2), (1, 4)),
}


def installed_versions(name: str) -> dict[str, str]:
    """The installed distributions that provide the import ``name``, with their versions."""
    found = {}
    for distribution in PACKAGES[name].distributions:
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def own_files() -> Path:
    """The folder with our configs, tools and index of models: in the package, or else the clone."""
    home = Path(__file__).parents[1]
    return home / '.mim' if (home / '.mim/configs').is_dir() else home.parent


def install_help(name: str) -> str:
    """Give the command that installs a package to match the OpenMMLab packages that are there already."""
    original = any(not distribution.startswith('onedl-') for other in ('mmengine', 'mmcv')
                   for distribution in installed_versions(other))
    distribution, extra = (PACKAGES[name].distributions[int(original)], 'openmmlab' if original else 'onedl')
    if {'mmcv', 'mmcv-full'} & installed_versions('mmcv').keys():
        # The extra would put mmcv-lite over it.
        return f'Install it with `pip install {distribution}`.'
    return (f'Install it with `pip install {distribution}`, or everything that PlugConv-MM works with by '
            f"`pip install 'plugconv-mm[{extra}]'`.")


def mmcv_build_help() -> str:
    """Give the command that adds mmcv's compiled operators to the installed mmcv."""
    distribution, version = next(iter(installed_versions('mmcv').items()), ('onedl-mmcv', '2.3.6'))
    start, tools = 'To have every operator of mmcv, ', "`pip install 'setuptools>=80,<82' wheel ninja psutil`"
    build = 'MMCV_WITH_OPS=1 pip install --no-cache-dir --no-build-isolation --force-reinstall --no-deps'
    if distribution == 'mmcv-lite':
        return (f'{start}build them: for the onedl-* packages `make mmcv` in a clone of PlugConv-MM, or here, in place '
                f'of mmcv-lite, {tools}, `pip uninstall -y mmcv-lite` and then `{build} mmcv=={version}`.')
    return (f'{start}build them: `make mmcv` in a clone of PlugConv-MM, or, in the environment that holds torch, '
            f'{tools} and then `{build} {distribution}=={version}`.')


def import_plug_in(module: str, what: str):
    """Import one of our modules on behalf of somebody who asked for ``what``.

    Raises:
        MissingPackageError: If the import fails; it says which package is missing and how to install it, or, where
            the package is there but broken, passes on why.
    """
    try:
        return importlib.import_module(module)
    except MissingPackageError:
        raise
    except Exception as error:
        name = (getattr(error, 'name', None) or '').partition('.')[0]
        if isinstance(error, ModuleNotFoundError) and name in PACKAGES and importlib.util.find_spec(name) is None:
            raise MissingPackageError(f'{what} needs {name}, which is not installed. {install_help(name)}',
                                      name=name) from error
        raise MissingPackageError(f'{what} cannot be imported, though what it needs is installed: '
                                  f'{type(error).__name__}: {error}. The error above this one shows the file.',
                                  name=name or None) from error


def plug_ins(package: str, **files: list[str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package whose classes are imported when first asked for.

    So importing the package costs nothing, and needs none of the packages that only some of its classes need. The
    registries of :mod:`plugconv_mm.registry` find the classes by the same road.

    Args:
        package: Its ``__name__``.
        files: For each module in it, the names that it provides.

    Example:
        In ``plugconv_mm/models/necks/__init__.py``::

            if TYPE_CHECKING:  # for editors
                from plugconv_mm.models.necks.hor_fpn import HorFPN as HorFPN

            __getattr__, __dir__, __all__ = plug_ins(__name__, hor_fpn=['HorFPN'])
    """
    origin = {name: file for file, names in files.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in origin:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        module = import_plug_in(f'{package}.{origin[name]}', what=name)
        value = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origin})

    return __getattr__, __dir__, sorted(origin)


def check_versions() -> None:
    """Warn, once and about everything together, of versions we do not support and of doubled packages."""
    problems = []
    for name, package in PACKAGES.items():
        found = installed_versions(name)
        if len(found) > 1:
            both = ' and '.join(f'{distribution} {version}' for distribution, version in found.items())
            problems.append(f"{both} both provide `{name}` and overwrite each other's files: uninstall both, then "
                            f'install one of them again')
            continue
        for distribution, version in found.items():
            numbers = re.match(r'(\d+)\.(\d+)', version)
            if numbers and not package.first <= tuple(map(int, numbers.groups())) < package.end:
                # mmcv-full ended before mmcv 2; the other names carry on.
                successor = 'mmcv' if distribution == 'mmcv-full' else distribution
                problems.append(f'{distribution} {version} is outside the supported versions: uninstall it and '
                                f"`pip install '{successor}{package.versions}'`")
    if problems:
        warnings.warn('PlugConv-MM may fail with what is installed here:\n' +
                      '\n'.join(f'  - {problem}' for problem in problems), RuntimeWarning, stacklevel=3)
