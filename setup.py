"""Build step that pyproject.toml cannot describe: the configs, tools and index of models that the package brings."""
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildPyWithMim(build_py):
    """Puts configs, tools and the index of models under ``plugconv_mm/.mim``, where mim and mmengine look for them."""

    def run(self) -> None:
        super().run()
        mim = (ROOT if self.editable_mode else Path(self.build_lib)) / 'plugconv_mm' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            source = ROOT / name
            if self.editable_mode:
                os.symlink(os.path.relpath(source, mim), mim / name)
            elif source.is_dir():
                shutil.copytree(source, mim / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, mim / name)


setup(cmdclass={'build_py': BuildPyWithMim})
