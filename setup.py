"""Packaging of PlugConv-MM. Dependencies live in ``requirements/``, linters and pytest in ``pyproject.toml``."""
import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def read_version():
    """Reads the version without importing the package, which would need torch."""
    text = (ROOT / 'plugconv_mm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


def read_requirements(name):
    """Reads ``requirements/<name>.txt``, following ``-r`` lines."""
    requirements = []
    for line in (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines():
        line = line.split('#')[0].strip()
        if line.startswith('-r '):
            requirements += read_requirements(Path(line[3:].strip()).stem)
        elif line:
            requirements.append(line)
    return requirements


class BuildPyWithMim(build_py):
    """Puts configs, tools and the index of models under ``plugconv_mm/.mim``, where mim and mmengine look for them."""

    def run(self):
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


setup(
    name='plugconv-mm',
    version=read_version(),
    description='Plug-in convolutions with a global view for mmdetection, mmsegmentation and mmpretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The PlugConv-MM authors',
    license='Apache-2.0',
    keywords='computer vision, object detection, segmentation, OpenMMLab, circular convolution, gnConv',
    packages=find_packages(include=['plugconv_mm', 'plugconv_mm.*']),
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={
        'onedl': read_requirements('onedl'),
        'openmmlab': read_requirements('openmmlab'),
        'analysis': read_requirements('analysis'),
        'demo': read_requirements('demo'),
        'docs': read_requirements('docs'),
        'onnx': read_requirements('onnx'),
        'tests': read_requirements('tests'),
        'dev': read_requirements('tests') + read_requirements('build'),
    },
    cmdclass={'build_py': BuildPyWithMim},
    zip_safe=False,
    classifiers=[
        'Development Status :: 4 - Beta',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
