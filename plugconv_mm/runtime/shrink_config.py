"""Configs made small, as dry runs take them: mini data sets, small images and few iterations.

Nothing is replaced but where the data is, how big images, batches and samples of boxes are, and how long it takes.
Weights that are not on this machine are left out, and scores below the config's threshold count, so that a model of
random weights has something to evaluate.
"""
from pathlib import Path
from typing import Any

from mmengine.config import Config

from plugconv_mm.runtime.config_parts import inner_datasets, starting_weights, without_operators
from plugconv_mm.runtime.config_tree import map_values, walk

# Shorter side of an image in the test, in pixels.
_SIDES = dict(mmdet=96, mmseg=64, mmpretrain=64)
# Keys of a pipeline that hold sizes in pixels, or pairs of them, or lists of these.
_PIXELS = ('scale', 'scales', 'crop_size')
# Numbers of boxes, of queries, which may be no more than the positions of a small image, and of samples, and scores
# below which a box does not count.
_AT_MOST = dict(nms_pre=100, max_per_img=20, num_queries=50, num=16, score_thr=0., filter_thr=0.)


def leave_out_weights(cfg: Config) -> list[str]:
    """Start from random weights in the place of those that are not on this machine.

    Batch norms that would keep the statistics of such weights take those of the batch: there are no others.

    Args:
        cfg: The whole config, changed in place.

    Returns:
        The weights that are not there.
    """
    missing = []
    for _, node, key, file in starting_weights(cfg.model):
        if not Path(file).is_file():
            missing.append(file)
            node[key] = None
            if 'norm_eval' in node:
                node['norm_eval'] = False
    if cfg.get('load_from') and not Path(cfg.load_from).is_file():
        missing.append(cfg.load_from)
        cfg.load_from = None
    return missing


def make_small(cfg: Config, data: str | Path, longer: int = 0) -> None:
    """Replace data, sizes and iteration counts.

    Args:
        cfg: The whole config, changed in place.
        data: The folder that stands for ``data``.
        longer: 0 trains for two iterations and evaluates; 1 goes on for one iteration or epoch and does not.
    """
    cfg._cfg_dict.update(map_values(
        lambda value: f'{data}/{value[5:]}' if isinstance(value, str) and value.startswith('data/') else value,
        cfg._cfg_dict))
    pipelines = [dataset.pipeline for name in ('train_dataloader', 'val_dataloader', 'test_dataloader')
                 for _, dataset in inner_datasets((cfg.get(name) or {}).get('dataset'), name)]
    side = _side(pipelines[-1])
    factor = _SIDES[cfg.default_scope] / side if side else 1
    model = without_operators(cfg.model)
    for node in (*pipelines, cfg.get('tta_pipeline'), cfg.get('data_preprocessor'),
                 model.get('data_preprocessor'), model.get('test_cfg')):
        _scale(node, factor)
    cap_numbers(cfg.model)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            loader.update(batch_size=min(loader.batch_size, 2), num_workers=0)
            loader.pop('persistent_workers', None)
            leaves = [dataset for _, dataset in inner_datasets(loader.dataset, name)]
            for dataset in leaves:
                if len(leaves) > 1:
                    dataset.indices = 4 // len(leaves)
            if 'times' in loader.dataset:
                loader.dataset.times = 1
    by_epoch = 'max_epochs' in cfg.train_cfg
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        # one without an end of its own lasts as long as the training that the config asks for
        if scheduler.get('by_epoch', True) == by_epoch:
            scheduler.setdefault('end', cfg.train_cfg.max_epochs if by_epoch else cfg.train_cfg.max_iters)
    if by_epoch:
        cfg.train_cfg.update(max_epochs=1 + longer, val_interval=1)
    else:
        cfg.train_cfg.update(max_iters=2 + longer, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 1 if by_epoch else 2
    cfg.default_hooks.logger.interval = 1
    if longer:
        cfg.train_cfg.val_begin = 1000
        cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    cfg.randomness = dict(seed=0)


def _side(pipeline: list[dict]) -> int | None:
    """Shorter side of an image, in pixels, as the test pipeline makes it; None where it leaves it as it is."""
    sizes = {key: step[key] for step in pipeline for key in _PIXELS if key in step}
    size = sizes.get('crop_size', sizes.get('scale'))
    return min(size) if isinstance(size, (list, tuple)) else size


def _scale(settings: Any, factor: float) -> None:
    """Scale what is measured in pixels, in place."""
    for _, node in walk(settings):
        for key in {*_PIXELS, 'size', 'stride'} & set(node):
            if node[key] is not None:
                node[key] = map_values(lambda value: max(round(value * factor), 1), node[key])


def cap_numbers(settings: Any) -> None:
    """Limit numbers of boxes and samples, and thresholds of scores, in place."""
    for _, node in walk(settings):
        for key in set(_AT_MOST) & set(node):
            if isinstance(node[key], (int, float)):
                node[key] = min(node[key], _AT_MOST[key])
