"""Check of the categories of annotations against the classes of a config, before a model is built.

Datasets leave out what is annotated with a class that they do not know: own data under the names of COCO have no
objects left. Datasets of COCO's format number the classes in the order of the file, whatever the order in the config.
"""
import inspect
import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image

from plugconv_mm.errors import ConfigError, DataError
from plugconv_mm.runtime.config_parts import class_of, inner_datasets, metainfo_of
from plugconv_mm.runtime.config_tree import type_name

_KEY = re.compile(rb'"categories"\s*:\s*(?=\[)')
_WINDOW = 1 << 16  # bytes of a list of categories that are decoded first
_NUM_LABEL_MAPS = 8
_PACKAGES = ('mmcv', 'mmengine', 'mmpretrain', 'mmseg')  # whose transforms leave labels as they are


def check_categories(cfg: Config, *dataloaders: str) -> None:
    """Compare the categories of the annotations with the classes of the config.

    Checked are COCO's format, whose categories have to be in the order of the config, VOC's, of which one object has to
    be known, and the largest labels of a few label maps of mmseg. Other datasets, and files elsewhere than on a disk of
    this machine, are not looked at.

    Args:
        cfg: The whole config, whose data are there.
        *dataloaders: Names such as 'train_dataloader'.

    Raises:
        ConfigError: The classes in the config are no list.
        DataError: The categories are others; the message has both and the ``metainfo`` to set.
    """
    scope = cfg.get('default_scope')
    for name in dataloaders:
        for place, dataset in inner_datasets((cfg.get(name) or {}).get('dataset'), f'{name}.dataset'):
            kind = class_of(dataset, DATASETS, scope)
            formats = {base.__name__ for base in getattr(kind, '__mro__', ())}
            classes = metainfo_of(dataset, scope).get('classes')
            if not formats & {'CocoDataset', 'XMLDataset', 'BaseSegDataset'} or not classes:
                continue
            if isinstance(classes, str):
                if '://' in classes:
                    continue
                if not os.path.isfile(classes):
                    raise ConfigError(f'{place}.metainfo.classes is the text {classes!r} and should be a list of names '
                                      f'or a file with one on each line; a tuple of one has a comma: ({classes!r}, )')
                with open(classes, encoding='utf-8') as file:
                    classes = file.read().splitlines()
            classes = list(classes)
            if 'CocoDataset' in formats:
                _check_coco(kind, dataset, place, classes)
            elif 'XMLDataset' in formats:
                _check_voc(dataset, place, classes)
            elif not _changes_labels(kind, dataset, scope):
                _check_label_maps(kind, dataset, place, classes)


def _check_coco(kind: type, dataset: dict, place: str, classes: Sequence[str]) -> None:
    base = next(base for base in kind.__mro__ if base.__name__ == 'CocoDataset')
    file = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    own = not kind.__module__.startswith('mmdet.') and kind.parse_data_info is not base.parse_data_info
    if own or kind.load_data_list is not base.load_data_list or not os.path.isfile(file):
        return  # classes are numbered in another way, as in LVIS and Objects365
    names = categories_of(file)
    if names is not None and [name for name in names if name in set(classes)] != classes:
        others = set(classes) != set(names)
        _refuse(f'{file} has {"other categories than" if others else "the categories in another order than"} the '
                f'config ({place}, a {kind.__name__})', names, classes, place)


def categories_of(file: str) -> list[str] | None:
    """Names of the categories in an annotation file of COCO's format, in their order, without reading all of it.

    None where the file has no list of categories, or several that differ.
    """
    if not os.path.getsize(file):
        return None
    found = []
    with open(file, 'rb') as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for match in _KEY.finditer(text):
            found.append(_decode_names(text, match.end()))
    found = [names for names in found if names is not None]
    return found[0] if found and all(names == found[0] for names in found) else None


def _decode_names(text: mmap.mmap, start: int) -> list[str] | None:
    size = _WINDOW
    while True:
        try:
            items, _ = json.JSONDecoder().raw_decode(text[start:start + size].decode('utf-8', errors='replace'))
        except json.JSONDecodeError:
            if start + size >= len(text):
                return None
            size *= 4
            continue
        return [item['name'] for item in items] if all(
            isinstance(item, dict) and 'name' in item for item in items) else None


def _check_voc(dataset: dict, place: str, classes: Sequence[str]) -> None:
    folder = os.path.join(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('sub_data_root') or '',
                          dataset.get('ann_subdir') or 'Annotations')
    names = {}
    for name in _objects(folder):
        if name in classes:
            return
        names[name] = None
    if names:
        _refuse(f'no object in {folder} is of a class of the config ({place}, a {type_name(dataset["type"])})',
                list(names), classes, place)


def _objects(folder: str) -> Iterator[str]:
    """Names of the objects in a folder of VOC's annotations."""
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        if name.endswith('.xml'):
            try:
                found = ElementTree.parse(os.path.join(folder, name)).findall('object/name')
            except ElementTree.ParseError:
                continue
            yield from (element.text for element in found if element.text)


def _changes_labels(kind: type, dataset: dict, scope: str | None) -> bool:
    """Tell whether a model may be trained with other labels than those in the files."""
    by_name = 'classes' in (dataset.get('metainfo') or {}) and getattr(kind, 'METAINFO', {}).get('classes')
    kinds = [class_of(step, TRANSFORMS, scope) for step in dataset.get('pipeline') or ()]
    # One that no registry knows is left for the building of the dataset to name.
    return bool(by_name) or any(getattr(step, '__module__', '').partition('.')[0] not in _PACKAGES for step in kinds)


def _check_label_maps(kind: type, dataset: dict, place: str, classes: Sequence[str]) -> None:
    prefix = dataset.get('data_prefix') or {}
    folder = os.path.join(dataset.get('data_root') or '', prefix.get('seg_map_path') or '')
    suffix = _argument(kind, dataset, 'seg_map_suffix', '.png')
    if not prefix.get('seg_map_path') or not os.path.isdir(folder):
        return
    shift = bool(_argument(kind, dataset, 'reduce_zero_label', False))
    ignored = {255, _argument(kind, dataset, 'ignore_index', 255)}
    for name in sorted(name for name in os.listdir(folder) if name.endswith(suffix))[:_NUM_LABEL_MAPS]:
        file = os.path.join(folder, name)
        labels = [label for label in np.unique(Image.open(file)).tolist() if label not in ignored]
        if labels and max(labels) - shift >= len(classes):
            unlabelled = ', and 0 for what has no class (reduce_zero_label)' if shift else ''
            raise DataError(
                f'{file} has the label {max(labels)}, and the {len(classes)} classes of the config have the labels '
                f'{int(shift)} to {len(classes) - 1 + shift}{unlabelled} ({place}, a {type_name(dataset["type"])}; '
                f'{_some(classes)}). Give the names of all classes in metainfo=dict(classes=(...)) of the dataset, '
                'and set num_classes of the heads to their number')


def _argument(kind: type, dataset: dict, name: str, otherwise: object) -> object:
    """An argument of a dataset: of the config, or else the default of its type."""
    if name in dataset:
        return dataset[name]
    parameter = inspect.signature(kind).parameters.get(name)
    return otherwise if parameter is None or parameter.default is parameter.empty else parameter.default


def _some(names: Sequence[str], number: int = 12) -> str:
    return ', '.join(names[:number]) + (f' and {len(names) - number} more' if len(names) > number else '')


def _refuse(problem: str, names: Sequence[str], classes: Sequence[str], place: str) -> None:
    raise DataError(f'{problem}.\n    annotated:  {_some(names)}\n    the config: {_some(classes)}\n'
                    f'Add to the dataset: metainfo=dict(classes={tuple(names)!r})\n'
                    f'or the classes of these that you want, in this order, in all dataloaders, and set num_classes of '
                    f'the heads to {len(names)} or their number; --cfg-options {place}.metainfo.classes="[A,B]" sets '
                    'them as well')
