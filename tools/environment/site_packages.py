"""The folder that pip installs into: what a killed pip left there, and which files belong to a package."""
import contextlib
import shutil
from pathlib import Path


def discard_half_installed(site_packages: Path) -> None:
    """Removes what a killed pip left: folders it had set aside (``~name``), and packages without their file list.

    pip writes a package's RECORD last. Without it pip can neither uninstall the package nor know that files are
    missing, and would count it as installed; without the metadata it installs the package again.
    """
    for path in site_packages.glob('~*'):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for info in site_packages.glob('*.dist-info'):
        if not (info / 'RECORD').is_file():
            shutil.rmtree(info)


def recorded_files(site_packages: Path, distribution: str) -> set[str]:
    """Returns the files that pip lists for a distribution, without its metadata, or an empty set."""
    files = set()
    for record in site_packages.glob(f'{distribution}-*.dist-info/RECORD'):
        for line in record.read_text(encoding='utf-8').splitlines():
            name = line.rsplit(',', 2)[0].strip('"')
            if '.dist-info/' not in name and not name.startswith('..'):
                files.add(name)
    return files


def remove_files(site_packages: Path, names: set[str]) -> None:
    """Removes files, and the folders that are empty without them."""
    for name in names:
        path = site_packages / name
        with contextlib.suppress(OSError):
            path.unlink()
            while True:  # up to the first folder that is not empty
                path = path.parent
                path.rmdir()
