"""Our configs in the inferencers of mmdet, mmseg and mmpretrain, by the names that they have in our metafiles.

These look names up in the index of models of the package that they belong to: mmengine's BaseInferencer, and so those
of mmdet and mmseg, through one function that reads the index, and mmpretrain in a table that it fills at the first
question. Ours are added behind theirs, which stay what they are where a name is in both. Nothing is read before a name
is asked for.
"""
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from plugconv_mm.compat.imports import after_import
from plugconv_mm.compat.packages import own_files

if TYPE_CHECKING:
    from modelindex.models.Model import Model

# The package whose models are trained on a data set of our metafiles.
_SCOPES = {
    'ImageNet-1K': 'mmpretrain',
    'ImageNet-21K': 'mmpretrain',
    'COCO': 'mmdet',
    'Pascal VOC': 'mmdet',
    'ADE20K': 'mmseg',
    'Cityscapes': 'mmseg',
    'Pascal VOC 2012': 'mmseg',
}


def _own_models(scope: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of our metafiles that belong to a package, with whole paths of configs."""
    from mmengine.fileio import load
    root = own_files()
    index = root / 'model-index.yml'
    for metafile in load(index)['Import'] if index.is_file() else ():
        for model in load(root / metafile)['Models']:
            if _SCOPES.get(model['Metadata']['Training Data']) == scope:
                yield dict(model, Config=str(root / model['Config']), Weights=model.get('Weights'))


def _add_to_mmengine(module: ModuleType) -> None:
    base = module.BaseInferencer
    original, folder_of = base._get_models_from_metafile, base._get_repo_or_mim_dir

    @functools.wraps(original)
    def _get_models_from_metafile(dir: str) -> Iterator[dict[str, Any]]:
        yield from original(dir)
        for scope in sorted(set(_SCOPES.values()) & sys.modules.keys()):
            if Path(folder_of(scope)) == Path(dir):
                yield from _own_models(scope)

    if not hasattr(original, '__wrapped__'):
        base._get_models_from_metafile = staticmethod(_get_models_from_metafile)


def _add_to_mmpretrain(module: ModuleType) -> None:
    hub = module.ModelHub
    original = hub._register_mmpretrain_models.__func__

    @functools.cache
    def own() -> 'dict[str, Model]':
        from modelindex.models.Model import Model
        # Models without results are of no task, and missing where those of a task are listed.
        results = [dict(Task='Image Classification', Dataset='ImageNet-1k', Metrics={})]
        return {model['Name'].lower(): Model.from_dict(dict(Results=results) | model)
                for model in _own_models('mmpretrain')}

    @functools.wraps(original)
    def _register_mmpretrain_models(cls: type) -> None:
        original(cls)
        for name, model in own().items():
            cls._models_dict.setdefault(name, model)

    if not hasattr(original, '__wrapped__'):
        hub._register_mmpretrain_models = classmethod(_register_mmpretrain_models)


def install() -> None:
    """Add our models, now or as soon as the inferencers are imported. Calling it again changes nothing."""
    after_import('mmengine.infer.infer', _add_to_mmengine)
    after_import('mmpretrain.apis.model', _add_to_mmpretrain)
