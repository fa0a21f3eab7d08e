"""The index of the configs: ``configs/<family>/metafile.yml``, and the tables of each family's README.

A metafile holds figures measured here beside those of the papers. Written by hand in it are the collection, and for a
model the paper's ``Results`` (marked by ``Results From: paper`` in its metadata), its ``Published Parameters`` and
``Published FLOPs``, a ``Note`` if the published figure cannot be ours, and ``Weights``, the address of a published file
that the tools load as it is. The rest comes from the config.
"""
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from mmengine.config import Config

from plugconv_mm.analysis.flops import ModelCost
from plugconv_mm.atomic_write import atomic_write

FAMILIES = ('parc', 'hornet', 'horfpn', 'slak', 'kernel_warehouse', 'transcnn')
TOLERANCE = 0.03
# Endings of the configs' names, in the order of the tables, and the datasets.
DATASETS = dict(in1k='ImageNet-1K', in21k='ImageNet-21K', coco='COCO', voc0712='Pascal VOC', ade20k='ADE20K',
                cityscapes='Cityscapes', voc12aug='Pascal VOC 2012')
_PREFACE = ('\nParameters and FLOPs (multiply-adds) are measured by `tools/analysis_tools/get_flops.py`. '
            'Published figures are those\nof the papers, measured by their authors.\n')
_BEGIN, _END = '<!-- models: written by tools/misc/update_model_zoo.py -->', '<!-- end of models -->'


def dataset_of(name: str) -> str:
    """The dataset of a config, as its key in ``DATASETS``, from the config's name.

    Raises:
        ValueError: The name has no such ending.
    """
    match = re.search(rf'_({"|".join(DATASETS)})(-\d+(x\d+|px))?$', name)
    if not match:
        raise ValueError(f'the name of a config ends in {", ".join(f"_{known}" for known in DATASETS)}, and perhaps '
                         f'the size of the images, as in -512x512 or -256px; got {name}')
    return match[1]


def image_size(name: str) -> tuple[int, int]:
    """Height and width of the image for which papers publish the cost of a config."""
    dataset, resolution = dataset_of(name), re.search(r'-(\d+)(x\d+|px)$', name)
    if dataset == 'ade20k':
        side = int(resolution[1])
        return side, 4 * side
    if dataset == 'cityscapes':
        return 1024, 2048  # trained on crops, tested on whole images
    if dataset in ('coco', 'voc0712') and not resolution:
        return 800, 1280
    side = int(resolution[1]) if resolution else 224
    return side, side


def configs_of(folder: Path) -> list[Path]:
    """The configs in a family's folder, by dataset and name."""
    return sorted(folder.glob('*.py'), key=lambda path: (list(DATASETS).index(dataset_of(path.stem)), path.stem))


def name_of(path: Path) -> str:
    """The name of a config in the index: its file's, after the family's if several families have such a file."""
    alone = len(list(path.parents[1].glob(f'*/{path.name}'))) == 1
    return path.stem if alone else f'{path.parent.name}_{path.stem}'


def describe(path: Path, cfg: Config, cost: ModelCost, collection: str, before: dict) -> dict:
    """Make the entry of a config in its metafile.

    Args:
        path: The config's file.
        cfg: The config.
        cost: Its measured cost.
        collection: Name of the collection that it belongs to.
        before: The entry so far, whose fields written by hand are kept; empty for a new config.
    """
    loop = cfg.train_cfg
    written = {key: value for key, value in before.get('Metadata', {}).items()
               if key in ('Published Parameters', 'Published FLOPs', 'Note', 'Results From')}
    entry = {
        'Name': name_of(path),
        'In Collection': collection,
        'Config': f'configs/{path.parent.name}/{path.name}',
        'Metadata': {
            'Training Data': DATASETS[dataset_of(path.stem)],
            'Schedule': f'{loop.max_iters // 1000}k iterations' if 'max_iters' in loop else f'{loop.max_epochs} epochs',
            'Image': 'x'.join(map(str, cost.shape)),
            'Parameters': cost.total_params,
            'FLOPs': cost.total_macs(),
            **written,
        },
    }
    return entry | {key: before[key] for key in ('Results', 'Weights') if key in before}


def read(path: Path) -> dict:
    """Read a metafile, or the index of them."""
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def write(path: Path, content: str | dict) -> None:
    """Write a README or a metafile atomically."""
    if isinstance(content, dict):
        content = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    with atomic_write(path) as file:
        file.write(content.encode())


def disagreements(models: list[dict]) -> Iterator[str]:
    """Find figures that are neither within three percent of the paper's nor round to it; one line for each."""
    for model in models:
        for key in ('Parameters', 'FLOPs'):
            published = model['Metadata'].get(f'Published {key}')
            if published is None:
                continue
            digits, unit = published[:-1], dict(M=1e6, G=1e9)[published[-1]]
            rounding = 0.5 * 10**-len(digits.partition('.')[2])
            if abs(model['Metadata'][key] / unit - float(digits)) > max(TOLERANCE * float(digits), rounding):
                yield f'{model["Name"]}: {model["Metadata"][key] / unit:.2f}{published[-1]} {key}, not {published}'


def with_tables(readme: str, models: list[dict]) -> str:
    """Write tables of models into the text of a README, between its two marks, or at the end if it has none."""
    before, _, rest = readme.partition(_BEGIN)
    after = rest.partition(_END)[2] or '\n'
    notes = []
    parts = [_table(title, [model for model in models if dataset_of(model['Name']) == suffix], notes)
             for suffix, title in DATASETS.items()]
    parts += [''.join(f'{i}. {note}\n' for i, note in enumerate(notes, 1))]
    return f'{before.rstrip()}\n\n{_BEGIN}\n{_PREFACE}\n' + '\n'.join(filter(None, parts)) + f'{_END}{after}'


def _table(title: str, models: list[dict], notes: list[str]) -> str:
    if not models:
        return ''
    lines = [f'## {title}\n', '| Config | Schedule | Parameters | FLOPs | Image | Published | Command |',
             '| --- | --- | --- | --- | --- | --- | --- |']
    for model in models:
        data, file = model['Metadata'], model['Config'].rpartition('/')[2]
        said = [', '.join(f'{metric} {value}' for result in model.get('Results', ())
                          for metric, value in result['Metrics'].items()),
                ', '.join(data[key] for key in ('Published Parameters', 'Published FLOPs') if key in data),
                f'[weights]({model["Weights"]})' if 'Weights' in model else '']
        if note := data.get('Note'):
            notes += [note] if note not in notes else []
            said[1] += f' ({notes.index(note) + 1})'
        gpus = re.search(r'_(\d+)xb\d', file)
        lines.append(' | '.join((
            f'| [{file.removesuffix(".py")}]({file})', data['Schedule'], f'{data["Parameters"] / 1e6:.2f}M',
            f'{data["FLOPs"] / 1e9:.4g}G', data['Image'].replace('x', '×'), '; '.join(filter(None, said)),
            f'`bash tools/dist_train.sh {model["Config"]} {gpus[1] if gpus else 8}` |')))
    return '\n'.join(lines) + '\n'
