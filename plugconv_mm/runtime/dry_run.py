"""Dry run of a config: all that it says, on mini data sets and at a small size, in seconds.

Nothing is replaced but where the data is, how big images, batches and samples of boxes are, and how long it takes.
Weights that are not on this machine are left out, and scores below the config's threshold count, so that a model of
random weights has something to evaluate.
"""
import gc
import logging
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.hooks import Hook

from plugconv_mm.datasets import build_digits, build_distant_cue, build_mini
from plugconv_mm.runtime.launch import (
    build_runner,
    check_data,
    explain,
    inner_datasets,
    is_sharded,
    load_config,
    make_parser,
    set_pretrain_dataloaders,
)

STAGES = ('config', 'data', 'build', 'train', 'evaluate', 'checkpoint', 'resume')
# Shorter side of an image in the test, in pixels.
_SIDES = dict(mmdet=96, mmseg=64, mmpretrain=64)
# Keys of a pipeline that hold sizes in pixels, or pairs of them, or lists of these.
_PIXELS = ('scale', 'scales', 'crop_size')
# Numbers of boxes and of samples, and scores below which a box does not count.
_AT_MOST = dict(nms_pre=100, max_per_img=20, num=16, score_thr=0., filter_thr=0.)


@dataclass
class Report:
    """What a dry run came to.

    Attributes:
        config (str): The file.
        failed (str | None): The stage that failed, one of ``STAGES``.
        error (str): What it failed with.
        missing_weights (list[str]): Weights that the config starts from and that are not on this machine.
        whole (bool): Whether the config shards the model, which one process does not.
        losses (list[float]): Of the training iterations.
        metrics (dict): What the evaluator returned.
        parameters (int): Of the model.
        seconds (float): How long it took.
    """
    config: str
    failed: str | None = None
    error: str = ''
    missing_weights: list = field(default_factory=list)
    whole: bool = False
    losses: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.


class DryRunError(RuntimeError):
    """A stage ran to its end and did not do what it should."""


def build_data(root):
    """Build the mini data sets and a few digits, laid out under ``root`` as the configs look for them."""
    build_mini(root)
    build_digits(Path(root) / 'digits', num_train=4, num_val=2, log=lambda line: None)
    build_distant_cue(Path(root) / 'distant_cue', num_train=4, num_val=2)


def dry_run(config, data, work_dir):
    """Run a config through every stage.

    Args:
        config (str | Path): The file.
        data (str | Path): What :func:`build_data` built; it stands for the folder ``data``.
        work_dir (str | Path): For logs and checkpoints.

    Returns:
        Report: How far it got. Errors are not raised, but for KeyboardInterrupt and the like.
    """
    report, start = Report(str(config)), time.perf_counter()
    watch = _Watch(report)
    try:
        _dry_run(report, watch, data, work_dir)
    except (Exception, SystemExit) as error:
        import traceback
        traceback.print_exc()
        report.failed, report.error = watch.stage, explain(error) or f'{type(error).__name__}: {error}'
    report.seconds = time.perf_counter() - start
    return report


def dry_run_apart(config, data, work_dir, sender):
    """Dry run in a process of its own, whose output goes to ``log.txt`` and whose checkpoints do not stay.

    Args:
        config (str | Path): The file.
        data (str | Path): As :func:`dry_run` takes it.
        work_dir (Path): For logs and checkpoints.
        sender (multiprocessing.connection.Connection): Takes the report.
    """
    with open(work_dir / 'log.txt', 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.root.handlers.clear()
    report = dry_run(config, data, work_dir)
    for path in work_dir.glob('*.pth'):
        path.unlink()
    report.error = report.error[:1000]
    sender.send(report)


def _dry_run(report, watch, data, work_dir):
    def prepare(longer):
        cfg = load_config(make_parser('').parse_args([report.config, '--work-dir', str(work_dir)]))
        report.missing_weights = leave_out_weights(cfg)
        make_small(cfg, data, longer)
        set_pretrain_dataloaders(cfg)
        return cfg

    cfg = prepare(longer=0)
    watch.stage = 'data'
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    watch.stage = 'build'
    report.whole = is_sharded(cfg)
    runner = build_runner(cfg)
    report.parameters = sum(p.numel() for p in runner.model.parameters())
    runner.register_hook(watch, 'LOWEST')
    runner.train()
    watch.stage = 'train'
    if len(report.losses) != 2 or not all(map(math.isfinite, report.losses)):
        raise DryRunError(f'two finite losses were expected, got {report.losses}')
    watch.stage = 'evaluate'
    if cfg.get('val_dataloader') and not report.metrics:
        raise DryRunError('the evaluator returned nothing')
    watch.stage = 'checkpoint'
    if not Path((Path(work_dir) / 'last_checkpoint').read_text()).is_file():
        raise DryRunError('there is no checkpoint')
    watch.stage = 'resume'
    rates = runner.optim_wrapper.get_lr()
    del runner
    gc.collect()

    cfg = prepare(longer=1)
    cfg.resume = True
    runner = build_runner(cfg)
    again = _Watch(Report(report.config))
    runner.register_hook(again, 'LOWEST')
    runner.train()
    if again.first != (2, rates):
        raise DryRunError(f'training should go on from iteration 2 at the learning rates {rates}, it did from '
                             f'iteration {again.first[0]} at {again.first[1]}')
    if not again.report.losses or not all(map(math.isfinite, again.report.losses)):
        raise DryRunError(f'finite losses were expected, got {again.report.losses}')


class _Watch(Hook):
    """Notes the stage a runner is in, and what comes out of it."""

    def __init__(self, report):
        self.report = report
        self.stage = 'config'
        self.first = None

    def before_train(self, runner):
        self.stage = 'train'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.stage = 'train'
        if self.first is None:
            self.first = runner.iter, runner.optim_wrapper.get_lr()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.report.losses.append(float(outputs['loss']))

    def before_val(self, runner):
        self.stage = 'evaluate'

    def after_val_epoch(self, runner, metrics=None):
        self.report.metrics = dict(metrics or {})

    def before_save_checkpoint(self, runner, checkpoint):
        self.stage = 'checkpoint'


def leave_out_weights(cfg):
    """Start from random weights in the place of those that are not on this machine, and name these.

    Batch norms that would keep the statistics of such weights take those of the batch: there are no others.
    """
    missing = []

    def is_missing(path):
        return isinstance(path, str) and not Path(path).is_file()

    def visit(node):
        if isinstance(node, dict):
            for key, value in list(node.items()):
                if key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained' and is_missing(
                        value.checkpoint):
                    missing.append(value.checkpoint)
                    node[key] = None
                    if 'norm_eval' in node:
                        node.norm_eval = False
                elif key == 'pretrained' and is_missing(value):
                    missing.append(value)
                    node[key] = None
                else:
                    visit(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                visit(value)

    visit(cfg.model)
    if is_missing(cfg.get('load_from')):
        missing.append(cfg.load_from)
        cfg.load_from = None
    return missing


def make_small(cfg, data, longer=0):
    """Replace data, sizes and iteration counts.

    Args:
        cfg (Config): Changed in place.
        data (str | Path): Stands for the folder ``data``.
        longer (int): 0 trains for two iterations and evaluates; 1 goes on for one iteration or epoch and does not.
    """
    cfg._cfg_dict.update(_moved(cfg._cfg_dict, str(data)))
    pipelines = [dataset.pipeline for name in ('train_dataloader', 'val_dataloader', 'test_dataloader')
                 for _, dataset in inner_datasets((cfg.get(name) or {}).get('dataset'), name)]
    side = _side(pipelines[-1])
    factor = _SIDES[cfg.default_scope] / side if side else 1
    for node in (*pipelines, cfg.get('tta_pipeline'), cfg.get('data_preprocessor'),
                 cfg.model.get('data_preprocessor'), cfg.model.get('test_cfg')):
        _scale(node, factor)
    _cap(cfg.model)
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


def _moved(node, data):
    """A copy in which every path under ``data/`` leads into another folder."""
    if isinstance(node, dict):
        return type(node)({key: _moved(value, data) for key, value in node.items()})
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(value, data) for value in node)
    if isinstance(node, str) and node.startswith('data/'):
        return f'{data}/{node[5:]}'
    return node


def _side(pipeline):
    """Shorter side of an image, in pixels, as the test pipeline makes it; None where it leaves it as it is."""
    sizes = {key: step[key] for step in pipeline for key in _PIXELS if key in step}
    size = sizes.get('crop_size', sizes.get('scale'))
    return min(size) if isinstance(size, (list, tuple)) else size


def _scale(node, factor):
    """Scale what is measured in pixels, in place."""

    def scaled(value):
        if isinstance(value, (list, tuple)):
            return type(value)(scaled(v) for v in value)
        return max(round(value * factor), 1)

    if isinstance(node, dict):
        for key, value in node.items():
            if key in (*_PIXELS, 'size', 'stride') and value is not None:
                node[key] = scaled(value)
            else:
                _scale(value, factor)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _scale(value, factor)


def _cap(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _AT_MOST and isinstance(value, (int, float)):
                node[key] = min(value, _AT_MOST[key])
            else:
                _cap(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _cap(value)
