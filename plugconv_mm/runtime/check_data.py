"""Checks of the data of a config, before its model is built."""
import os
from typing import Any

from mmengine.config import Config

from plugconv_mm.datasets import check_digits
from plugconv_mm.errors import DataError
from plugconv_mm.runtime.check_categories import check_categories
from plugconv_mm.runtime.config_parts import evaluators_of, inner_datasets
from plugconv_mm.runtime.config_tree import type_name

# Layouts of the folders of the data sets, by the type of the dataset.
_COCO = """annotations/instances_{train,val}2017.json
train2017/*.jpg
val2017/*.jpg"""
_LAYOUTS = {
    'CocoDataset': _COCO,
    'CocoPanopticDataset': _COCO.replace('instances', 'panoptic') + '\nannotations/panoptic_{train,val}2017/*.png',
    'ADE20KDataset': 'images/{training,validation}/*.jpg\nannotations/{training,validation}/*.png',
    'VOCDataset': """VOC2007/Annotations/*.xml
VOC2007/ImageSets/Main/{trainval,test}.txt
VOC2007/JPEGImages/*.jpg
VOC2012/Annotations/*.xml
VOC2012/ImageSets/Main/trainval.txt
VOC2012/JPEGImages/*.jpg""",
    'CityscapesDataset': """leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png
    the labelTrainIds are written by mmseg's tools/dataset_converters/cityscapes.py""",
    'PascalVOCDataset': """JPEGImages/*.jpg
ImageSets/Segmentation/{train,val,aug}.txt
SegmentationClass/*.png
SegmentationClassAug/*.png
    the last folder and aug.txt are written by mmseg's tools/dataset_converters/voc_aug.py""",
    'ImageNet': """train/n01440764/*.JPEG, and 999 more folders
val/n01440764/*.JPEG, and 999 more folders
    or, with meta/{train,val}.txt of lines such as `n01440764/n01440764_10026.JPEG 0`, laid out as these say""",
    'ImageNet21k': """train/n01440764/*.JPEG, and 21840 more folders
meta/train.txt, where there is one, of lines such as `n01440764/n01440764_10026.JPEG 0`""",
}


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Look for the data of these dataloaders, and compare the categories with the classes of the config.

    Args:
        cfg: The whole config. Its ``prepare_data``, where it has one, is the command that builds the data.
        *dataloaders: Names such as 'train_dataloader'; 'val_dataloader' stands for the evaluator, too.

    Raises:
        DataError: Something is not there, or half-built, or annotated with other categories. The message says what,
            where it was looked for, and how the folder should look.
    """
    missing, kinds, settings = {}, {}, {}
    for name in dataloaders:
        for place, dataset in inner_datasets((cfg.get(name) or {}).get('dataset'), f'{name}.dataset'):
            root = dataset.get('data_root') or ''
            if cfg.get('prepare_data'):
                check_digits(root, cfg.prepare_data)
            for path in _expected(dataset):
                if not is_there(path):
                    missing.setdefault(path, {})[name] = None
                    kinds[type_name(dataset.get('type')), root] = None
                    settings[f'{place}.data_root=FOLDER'] = None
        name = name.replace('_dataloader', '_evaluator')
        for place, evaluator in evaluators_of(cfg, name):
            for key in ('ann_file', 'seg_prefix'):
                if evaluator.get(key) and not is_there(evaluator[key]):
                    missing.setdefault(evaluator[key], {})[name] = None
                    settings[f'{place}.{key}=PATH'] = None
    if not missing:
        return check_categories(cfg, *dataloaders)
    lines = [f'    {path}   ({", ".join(names)})' for path, names in missing.items()]
    message = f'data that the config reads is not there (looked for from {os.getcwd()}):\n' + '\n'.join(lines)
    for kind, root in kinds:
        if kind in _LAYOUTS:
            tree = '\n'.join(f'    {os.path.join(root, line)}' if not line.startswith(' ') else f'    {line.strip()}'
                             for line in _LAYOUTS[kind].splitlines())
            message += f'\nFor {kind} the folder should look like this:\n{tree}'
            break
    raise DataError(f'{message}\nPut the data there (a symbolic link does), or say where it is with --cfg-options '
                    + ' '.join(settings))


def _expected(dataset: dict[str, Any]) -> list[str]:
    """The files and folders that a dataset of one of these types reads."""
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    parts = [dataset.get('ann_file'), *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    kind = type_name(dataset.get('type'))
    if kind == 'VOCDataset':
        home = prefix.get('sub_data_root', '')
        parts += [os.path.join(home, 'Annotations'), os.path.join(home, 'JPEGImages')]
    elif kind.startswith('ImageNet') and dataset.get('split'):
        parts.append(dataset.split)
    paths = [os.path.join(root, part) for part in parts if isinstance(part, str) and part]
    return [root] if root and not is_there(root) else paths


def is_there(path: str) -> bool:
    """Tell whether a path is a file, or a folder with something in it, or not on this machine's disk at all."""
    if '://' in path:
        return True
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            return any(entries)
    return os.path.exists(path)
