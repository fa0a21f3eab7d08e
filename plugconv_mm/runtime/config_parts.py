"""Parts of a config that several commands look for: data sets and their pipelines, evaluators, starting weights."""
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, Registry

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_tree import type_name, walk

# Places below a dataset at which wrappers such as RepeatDataset and ConcatDataset have other datasets.
_INSIDE = re.compile(r'(\.dataset|\.datasets\.\d+)*')


def datasets_at(dataset: Any, place: str) -> Iterator[tuple[str, dict]]:
    """Yield a dataset and all datasets inside it, wrappers first, with their places in the config.

    Args:
        dataset: A dict of a config; anything else yields nothing.
        place: Its place in the config, such as ``'test_dataloader.dataset'``.
    """
    if isinstance(dataset, dict):
        for path, node in walk(dataset, place):
            if _INSIDE.fullmatch(path.removeprefix(place)):
                yield path, node


def inner_datasets(dataset: Any, place: str) -> Iterator[tuple[str, dict]]:
    """Yield the datasets inside wrappers such as RepeatDataset and ConcatDataset, with their places in the config.

    Args:
        dataset: A dict of a config; anything else yields nothing.
        place: Its place in the config, such as ``'test_dataloader.dataset'``.
    """
    for path, node in datasets_at(dataset, place):
        if not isinstance(node.get('dataset'), dict) and not node.get('datasets'):
            yield path, node


def pipelines_of(dataset: Any, place: str) -> Iterator[tuple[dict, list[dict]]]:
    """Yield the datasets inside wrappers, each with the whole pipeline that its images go through.

    A wrapper with a pipeline of its own (MultiImageMixDataset) goes on with what the dataset inside it returns.

    Args:
        dataset: A dict of a config; anything else yields nothing.
        place: Its place in the config.
    """
    nodes = list(datasets_at(dataset, place))
    for path, inner in inner_datasets(dataset, place):
        around = [node for outer, node in nodes if path.startswith(f'{outer}.')]
        yield inner, [step for node in (inner, *reversed(around)) for step in node.get('pipeline') or ()]


def first_test_dataset(cfg: Config, name: str = 'the config') -> tuple[dict, list[dict]]:
    """The first dataset of the test that reads images, and the steps by which it prepares an image.

    Steps that load annotations are left out.

    Args:
        cfg: The whole config.
        name: The name of the config in messages.

    Raises:
        ConfigError: There is no test dataset with a pipeline.
    """
    found = pipelines_of((cfg.get('test_dataloader') or {}).get('dataset'), 'test_dataloader.dataset')
    dataset, steps = next(found, ({}, []))
    if not steps:
        raise ConfigError(f'{name} has no test_dataloader with a dataset.pipeline, by which images are prepared')
    return dataset, [step for step in steps if 'Annotations' not in type_name(step.get('type'))]


def class_of(settings: dict, registry: Registry, scope: str | None) -> Any:
    """The class that a dict of a config names by its ``type``.

    Args:
        settings: The dict.
        registry: One of mmengine's root registries.
        scope: The ``default_scope`` of the config.
    """
    kind = settings.get('type')
    if not isinstance(kind, str):
        return kind
    with DefaultScope.overwrite_default_scope(scope), registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind)


def metainfo_of(dataset: dict, scope: str | None) -> dict:
    """Names of the classes, their colours and the like: of the class of a dataset, or as the config has them.

    Args:
        dataset: A dict of a config, with a ``type``.
        scope: The ``default_scope`` of the config.
    """
    return {**getattr(class_of(dataset, DATASETS, scope), 'METAINFO', {}), **(dataset.get('metainfo') or {})}


def evaluators_of(cfg: Config, name: str) -> list[tuple[str, dict]]:
    """The evaluators under a key, ``'val_evaluator'`` or ``'test_evaluator'``, with their places in the config."""
    found = cfg.get(name) or []
    if isinstance(found, dict):
        return [(name, found)]
    return [(f'{name}.{number}', evaluator) for number, evaluator in enumerate(found)]


def starting_weights(model: Any) -> Iterator[tuple[str, dict, str, str]]:
    """Yield what the parts of a model start from: the place and the dict of the part, the key in it, and the file.

    Args:
        model: ``cfg.model`` or a part of it; anything but a dict, list or tuple yields nothing.
    """
    for path, node in walk(model, 'model'):
        start, pretrained = node.get('init_cfg'), node.get('pretrained')
        # PVT has a checkpoint without a type.
        if isinstance(start, dict) and 'checkpoint' in start and (
                'type' not in start or type_name(start['type']) in ('Pretrained', 'PretrainedInit')):
            yield path, node, 'init_cfg', start['checkpoint']
        if isinstance(pretrained, str):
            yield path, node, 'pretrained', pretrained
        if _is_plugged(node) and node.get('checkpoint'):
            yield path, node, 'checkpoint', node['checkpoint']


def without_operators(model: Any) -> Any:
    """The config of a model as it is without operators, in which its parts are found.

    Args:
        model: ``cfg.model``; what ``plugconv_mm.plug`` is given as ``model``, or itself where it plugs nothing.
    """
    while _is_plugged(model):
        model = model.get('model')
    return model


def _is_plugged(settings: Any) -> bool:
    return isinstance(settings, dict) and settings.get('type') in ('plugconv_mm.plug', 'plug')
